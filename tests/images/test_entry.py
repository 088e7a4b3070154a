"""The entry's side of the runner contract."""

import base64
import hashlib
from pathlib import Path

import docker
import pytest

from images.box import Boxes, new_nonce, started
from images.conftest import boxes_of

PYTHONS = {
    "python": "print('ran')\n",
    "ansible": "- hosts: all\n  gather_facts: false\n  tasks: [{debug: {msg: ran}}]\n",
}
"""The images where an interpreter waits in the entry's place, and a playbook that would say that it ran."""


@pytest.fixture(params=["shell", *PYTHONS])
def waiting(request: pytest.FixtureRequest, client: docker.DockerClient, tmp_path: Path) -> tuple[Boxes, str]:
    """Each of the three runners, with the playbook that would say that it ran: the contract is one for all entries."""
    return boxes_of(client, request.param, tmp_path), PYTHONS.get(request.param, "echo ran")


def test_nothing_runs_before_the_release(shell: Boxes) -> None:
    """A prepared container holds the entry alone and has printed nothing."""
    with shell.open("echo ran") as box:
        commands = box.commands()

        assert any("agp-entry" in command for command in commands)
        assert not any(command.startswith("bash") for command in commands)
        assert box.printed_so_far() == b""
        box.release()
        assert box.finish().output == b"ran\n"


def test_the_marker_with_the_nonce_is_all_that_the_control_channel_carries(runner: Boxes) -> None:
    """In every image the container's stderr holds the marker, and the output nothing of it."""
    with runner.open("echo to stdout; echo to stderr >&2", command=("sh", f"/playbook/playbook{runner.suffix}")) as box:
        nonce = box.release()
        finished = box.finish()

    assert finished.control == started(nonce)
    assert finished.output == b"to stdout\nto stderr\n"
    assert finished.exit_code == 0


def test_the_end_of_stdin_before_the_release_ends_the_container_without_a_word(runner: Boxes) -> None:
    """When the agent is gone, a prepared container ends by itself and has run nothing."""
    with runner.open("echo ran") as box:
        box.hang_up()
        finished = box.finish()

    assert (finished.exit_code, finished.output, finished.control) == (125, b"", b"")


def test_a_release_that_was_cut_short_is_no_release(waiting: tuple[Boxes, str]) -> None:
    """Half a line and then the end of stdin is the end of the agent, not a release."""
    boxes, playbook = waiting
    with boxes.open(playbook) as box:
        box._attached._sock.sendall(f"agp1 release {new_nonce()}".encode())
        box.hang_up()
        finished = box.finish()

    assert (finished.exit_code, finished.output, finished.control) == (125, b"", b"")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "agp2 release 0123456789abcdef0123456789abcdef",
        "agp1 secret hunter2",
        "agp1 release",
        "agp1 release 0123456789abcdef",
        "agp1 release 0123456789ABCDEF0123456789ABCDEF",
        "agp1 release 0123456789abcdef0123456789abcdef0",
        "agp1 release ../../../../../../../../../../bin",
        "agp1 release 0123456789abcdef0123456789abcdef ",
    ],
)
def test_any_other_line_is_refused_and_not_echoed(waiting: tuple[Boxes, str], line: str) -> None:
    """An entry that does not understand its agent runs nothing, says why, and repeats nothing of the line."""
    boxes, playbook = waiting
    with boxes.open(playbook) as box:
        box.send(line)
        finished = box.finish()

    assert finished.exit_code == 125
    assert finished.output == b""
    assert finished.control.startswith(b"agp1 error ")
    assert finished.control.count(b"\n") == 1
    assert b"hunter2" not in finished.control


def test_a_container_without_a_command_is_refused(shell: Boxes) -> None:
    """The entry says so instead of ending with a success that nobody earned."""
    with shell.open("echo ran", command=(), entrypoint=("/usr/local/bin/agp-entry",)) as box:
        box.release()
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (125, b"")
    assert finished.control == b"agp1 error the container was created without a command\n"


def test_stdout_and_stderr_come_in_true_order(shell: Boxes) -> None:
    """Lines that alternate between the two streams arrive exactly as they were printed."""
    script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done"
    expected = "".join(f"out {number}\nerr {number}\n" for number in range(500))

    assert shell.run(script).text == expected


def test_the_playbook_reads_nothing_from_stdin(shell: Boxes) -> None:
    """What the agent may still send is not for the playbook."""
    with shell.open("readlink /proc/self/fd/0; cat; echo end") as box:
        box.send(f"agp1 release {new_nonce()}\nnot for the playbook")
        finished = box.finish()

    assert finished.output == b"/dev/null\nend\n"


@pytest.mark.parametrize("exit_code", [0, 1, 2, 125, 255])
def test_the_exit_code_is_passed_on(runner: Boxes, exit_code: int) -> None:
    """The container ends as its command ended."""
    assert runner.look(f"exit {exit_code}").exit_code == exit_code


def test_a_playbook_that_a_signal_ended_ends_its_container_with_that_number(shell: Boxes) -> None:
    """128 and the number of the signal, as everywhere."""
    assert shell.run("kill -KILL $$").exit_code == 137


def test_a_command_that_is_not_there_is_127_and_says_so_in_the_output(shell: Boxes) -> None:
    """The sentence is part of the task's output; the control channel has the marker alone."""
    with shell.open("", command=("no-such-command",)) as box:
        nonce = box.release()
        finished = box.finish()

    assert finished.exit_code == 127
    assert "no-such-command: not found" in finished.text
    assert finished.control == started(nonce)


def test_term_reaches_the_shell(shell: Boxes) -> None:
    """A script can clean up when it is stopped."""
    with shell.open("trap 'echo stopped; exit 9' TERM; echo ready; while :; do sleep 0.05; done") as box:
        box.release()
        box.wait_for_output(b"ready\n")
        box.signal("SIGTERM")
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (9, b"ready\nstopped\n")


def test_term_reaches_python(python: Boxes) -> None:
    """A Python script can clean up when it is stopped."""
    script = """\
import signal, sys, time

def stop(number, frame):
    print("stopped")
    sys.exit(9)

signal.signal(signal.SIGTERM, stop)
print("ready")
time.sleep(3600)
"""
    with python.open(script) as box:
        box.release()
        box.wait_for_output(b"ready\n")
        box.signal("SIGTERM")
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (9, b"ready\nstopped\n")


def test_term_ends_a_container_that_still_waits(waiting: tuple[Boxes, str]) -> None:
    """A warm container that is no longer wanted goes at once, without the engine's KILL."""
    boxes, playbook = waiting
    with boxes.open(playbook) as box:
        box.signal("SIGTERM")
        finished = box.finish()

    assert (finished.exit_code, finished.output, finished.control) == (143, b"", b"")


def _secret(name: str, value: bytes) -> str:
    return f"agp1 secret {name} {base64.b64encode(value).decode()}"


def test_secrets_are_files_of_the_playbooks_user_alone_and_are_in_no_environment(runner: Boxes) -> None:
    """Each is what was sent, byte for byte, mode 0400; it is in no environment and in no command line."""
    key, blob = b"-----BEGIN KEY-----\nhunter2hunter2\n-----END KEY-----\n", bytes(range(256)) * 128
    script = (
        "for one in key blob none; do sha256sum </run/secrets/$one; stat -c '%a %u' /run/secrets/$one; done\n"
        "cat /proc/self/environ /proc/$$/cmdline | grep -c hunter2\nls -A /run/secrets | wc -l"
    )
    command = ("sh", f"/playbook/playbook{runner.suffix}")
    with runner.open(script, command=command, secrets_place=True) as box:
        for name, value in (("key", key), ("blob", blob), ("none", b"")):
            box.send(_secret(name, value))
        nonce = box.release()
        finished = box.finish()

    expected = "".join(f"{hashlib.sha256(value).hexdigest()}  -\n400 20007\n" for value in (key, blob, b""))
    assert finished.text == expected + "0\n3\n"
    assert finished.control == started(nonce)


@pytest.mark.parametrize("name", ["../key", ".key", "a/b", "$(id)", ".."])
def test_a_secret_whose_name_is_a_path_is_refused_and_not_echoed(waiting: tuple[Boxes, str], name: str) -> None:
    """Nothing runs, and nothing of the value comes back."""
    boxes, playbook = waiting
    with boxes.open(playbook, secrets_place=True) as box:
        box.send(f"agp1 secret {name} aHVudGVyMg==")
        box.release()
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (125, b"")
    assert b"aHVudGVyMg" not in finished.control


@pytest.mark.parametrize("value", ["hunter2!", "hunter2", "aHVudGVyMg== more"])
def test_a_secret_that_is_not_base64_is_refused_and_not_echoed(waiting: tuple[Boxes, str], value: str) -> None:
    """A release that was garbled runs nothing."""
    boxes, playbook = waiting
    with boxes.open(playbook, secrets_place=True) as box:
        box.send(f"agp1 secret key {value}")
        box.release()
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (125, b"")
    assert finished.control.startswith(b"agp1 error the secret key ")
    assert value.encode() not in finished.control


def test_a_secret_for_a_container_that_has_no_place_for_one_is_refused(waiting: tuple[Boxes, str]) -> None:
    """Only runners with secrets have the folder in memory; the root file system would not take one."""
    boxes, playbook = waiting
    with boxes.open(playbook) as box:
        box.send(_secret("key", b"hunter2"))
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (125, b"")
    assert finished.control == b"agp1 error the secret key came, and there is no writable /run/secrets for it\n"
