"""What an Ansible run tells the agent beside its output: failed tasks and the recap, on the entry's control channel."""

import json
from typing import Any

import pytest

from images.box import Boxes, Finished

FILE = "/playbook/playbook.yml"
WARM = ("ansible-playbook", FILE)
COLD = ("ansible-playbook", "-e", "x=1", FILE)
QUIET = "- hosts: all\n  gather_facts: false\n  tasks:\n"


def run(ansible: Boxes, playbook: str, command: tuple[str, ...] = WARM) -> Finished:
    """Run a playbook to its end, by a command that waits loaded or by one that does not."""
    with ansible.open(playbook, command=command) as box:
        box.release()
        return box.finish()


def events(finished: Finished) -> list[dict[str, Any]]:
    """All that was told after the start marker."""
    marker, *lines = finished.control.decode().splitlines()
    assert marker.startswith("agp1 started ")
    assert all(line.startswith("agp1 event ") for line in lines)
    return [json.loads(line.removeprefix("agp1 event ")) for line in lines]


def failures(finished: Finished) -> list[dict[str, str]]:
    """The failed tasks among it."""
    return [event["failure"] for event in events(finished) if "failure" in event]


def recap(finished: Finished) -> dict[str, int]:
    """The counts of the only host that are not 0."""
    (found,) = (event["recap"] for event in events(finished) if "recap" in event)
    return {name: number for name, number in found.items() if name != "host" and number}


@pytest.mark.parametrize("command", [WARM, COLD], ids=["warm", "cold"])
def test_a_failed_task_is_told_with_host_name_and_reason(ansible: Boxes, command: tuple[str, ...]) -> None:
    """Nothing of it is in the output."""
    playbook = (
        QUIET + "  - {name: Greet, debug: {msg: hello}}\n  - {name: Render the config, fail: {msg: no template}}\n"
    )
    finished = run(ansible, playbook, command)
    assert finished.exit_code == 2
    assert failures(finished) == [
        {"kind": "failed", "host": "localhost", "task": "Render the config", "message": "no template"}
    ]
    assert recap(finished) == {"ok": 1, "failed": 1}
    assert "agp1" not in finished.text


def test_a_run_without_failures_tells_its_recap_alone(ansible: Boxes) -> None:
    """One line for each host, with all counts."""
    finished = run(ansible, QUIET + "  - command: 'true'\n  - debug: {msg: hello}\n    when: false\n")
    assert events(finished) == [
        {
            "recap": {"host": "localhost", "ok": 1, "changed": 1, "unreachable": 0, "failed": 0, "skipped": 1}
            | {"rescued": 0, "ignored": 0}
        }
    ]


def test_a_failed_command_is_told_with_its_code_and_last_line(ansible: Boxes) -> None:
    """`non-zero return code` alone helps nobody."""
    finished = run(ansible, QUIET + "  - name: Check\n    shell: 'echo first >&2; echo the reason >&2; exit 3'\n")
    assert failures(finished)[0]["message"] == "non-zero return code (3): the reason"


def test_a_failed_loop_is_told_by_its_first_failed_item(ansible: Boxes) -> None:
    """Not by "One or more items failed"."""
    playbook = QUIET + "  - fail: {msg: 'item {{ item }} is bad'}\n    loop: [1, 2, 3]\n    when: item > 1\n"
    assert [one["message"] for one in failures(run(ansible, playbook))] == ["item 2 is bad"]


def test_an_unreachable_host_is_told(ansible: Boxes) -> None:
    """With what ssh said."""
    playbook = QUIET + (
        "  - add_host: {name: web1, ansible_connection: ssh, ansible_host: 127.0.0.1}\n"
        "- hosts: web1\n  gather_facts: false\n  tasks:\n  - {name: Knock, ping: {}}\n"
    )
    (failure,) = failures(run(ansible, playbook))
    assert (failure["kind"], failure["host"], failure["task"]) == ("unreachable", "web1", "Knock")
    assert "Connection refused" in failure["message"]


def test_what_the_playbook_goes_on_from_is_no_failure(ansible: Boxes) -> None:
    """Ignored, rescued at any depth, unreachable and ignored."""
    playbook = QUIET + (
        "  - {fail: {}, ignore_errors: true}\n"
        "  - block:\n    - fail:\n    rescue:\n    - debug: {msg: saved}\n"
        "  - block:\n    - block:\n      - fail:\n      always:\n      - debug: {msg: always}\n"
        "    rescue:\n    - debug: {msg: saved}\n"
        "  - add_host: {name: web1, ansible_connection: ssh, ansible_host: 127.0.0.1}\n"
        "- hosts: web1\n  gather_facts: false\n  tasks:\n  - {ping: {}, ignore_unreachable: true}\n"
    )
    finished = run(ansible, playbook)
    assert finished.exit_code == 0
    assert failures(finished) == []


def test_a_rescue_that_fails_is_one(ansible: Boxes) -> None:
    """What it was to save is not told, its own end is."""
    playbook = QUIET + "  - block:\n    - fail: {msg: first}\n    rescue:\n    - fail: {msg: second}\n"
    assert [one["message"] for one in failures(run(ansible, playbook))] == ["second"]


def test_a_task_without_log_hides_its_reason_here_too(ansible: Boxes) -> None:
    """As in the output."""
    finished = run(ansible, QUIET + "  - {name: Quiet, fail: {msg: hunter2}, no_log: true}\n")
    assert failures(finished)[0]["message"] == "details are hidden (no_log)"
    assert b"hunter2" not in finished.control


def test_many_failures_and_long_ones_are_cut(ansible: Boxes) -> None:
    """The agent looks at no more."""
    hosts = "".join(f"  - add_host: {{name: h{number}, ansible_connection: local}}\n" for number in range(30))
    playbook = QUIET + hosts + "- hosts: h*\n  gather_facts: false\n  tasks:\n  - fail: {msg: \"{{ 'x' * 5000 }}\"}\n"
    found = failures(run(ansible, playbook))
    assert len(found) == 20
    assert {len(one["message"]) for one in found} == {1000}


@pytest.mark.parametrize("command", [WARM, COLD], ids=["warm", "cold"])
def test_what_a_playbook_starts_has_neither_the_channel_nor_its_name(ansible: Boxes, command: tuple[str, ...]) -> None:
    """The control: in a shell that was left both, the same look finds both."""
    look = 'echo "events=${AGP_EVENTS-none}"; [ -e /proc/self/fd/8 ] || echo no 8'
    finished = run(
        ansible, QUIET + f"  - shell: |\n      {look}\n    register: seen\n  - debug: var=seen.stdout_lines\n", command
    )
    assert "events=none" in finished.text
    assert "no 8" in finished.text
    control = f"export AGP_EVENTS=8; exec 8>&1; sh -c '{look}'"
    with ansible.open("#", command=("sh", "-c", control)) as box:
        box.release()
        assert box.finish().text == "events=8\n"


def test_other_commands_have_no_channel(ansible: Boxes) -> None:
    """Only ansible-playbook goes on speaking."""
    with ansible.open(
        "#", command=("sh", "-c", "echo ${AGP_EVENTS-none}; [ -e /proc/self/fd/8 ] || echo closed")
    ) as box:
        box.release()
        assert box.finish().text == "none\nclosed\n"


def test_an_ansible_inside_a_playbook_is_silent(ansible: Boxes) -> None:
    """It is a command of the playbook like any other."""
    inner = "- hosts: all\\n  gather_facts: false\\n  tasks: [{fail: {msg: inner}}]\\n"
    playbook = QUIET + (
        f"  - shell: |\n      printf '{inner}' >/work/i.yml\n      ansible-playbook /work/i.yml\n"
        "    failed_when: false\n"
    )
    finished = run(ansible, playbook)
    assert [next(iter(event)) for event in events(finished)] == ["recap"]
