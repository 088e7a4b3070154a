"""An Ansible that was loaded before its release runs a playbook as one that is started after it."""

import base64
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from images.box import Box, Boxes, Finished, started
from images.conftest import TAG, boxes_of, child_of

FILE = "/playbook/playbook.yml"
QUIET = "- hosts: all\n  gather_facts: false\n"

VAULTED = """\
    !vault |
      $ANSIBLE_VAULT;1.1;AES256
      63313133306665616131663263626439326138616331366264363536346630353730623434666566
      6337323433653762383764313662313365626664656434390a313362343061323736623133383139
      38653963643334366136373233323663393031623861663061326331386235356330623131616338
      6232333266616331370a343562633333303234393338396661623063326562386336653530316339
      6665
"""
"""`open-sesame`, under the password `hunter2`."""


@dataclass(frozen=True)
class Case:
    """A playbook, what the catalog gives its runner, and how it ends."""

    playbook: str
    exit_code: int = 0
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    files: tuple[str, ...] = (FILE,)


def tasks(*lines: str, play: str = "") -> str:
    """A play over localhost without facts; each task is one line of YAML, `play` further keys of the play."""
    keys = f"  {play}\n" if play else ""
    return QUIET + keys + "  tasks:\n" + "".join(f"  - {line}\n" for line in lines)


HARMLESS_FAIL = """\
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {"changed": True, "mine": 1}
"""

CASES = {
    "facts": Case(
        "- hosts: all\n  tasks:\n"
        "  - debug: {msg: '{{ ansible_facts.distribution }} {{ ansible_facts.user_id }} {{ ansible_env.HOME }}'}\n"
        "  - debug: {msg: '{{ ansible_facts.keys() | sort }} {{ ansible_date_time.date }}'}\n"
        "  - assert: {that: \"(lookup('pipe', 'date +%s') | int) - (ansible_date_time.epoch | int) < 100\"}\n"
    ),
    "the kinds of actions": Case(
        tasks(
            "command: echo one",
            "shell: echo two >&2; echo three",
            "copy: {content: 'hello {{ 1 + 1 }}', dest: /work/t.j2, mode: '0600'}",
            "template: {src: /work/t.j2, dest: /work/t}",
            "file: {path: /work/d, state: directory}",
            "{lineinfile: {path: /work/t, line: more}, diff: true}",
            "{stat: {path: /work/t}, register: seen}",
            "debug: {var: seen.stat.size}",
            "{set_fact: {x: \"{{ [3, 1] | sort | map('string') | join('-') }}\"}}",
            "assert: {that: [x == '1-3', seen is succeeded]}",
            "debug: {msg: \"{{ lookup('file', '/work/t') }} {{ x | regex_replace('1', 'ü') }}\"}",
        )
    ),
    "loops, handlers and blocks": Case(
        QUIET + "  tasks:\n"
        "  - {debug: {msg: '{{ item }}'}, loop: [1, {b: 3}], loop_control: {label: x}, changed_when: true, notify: h}\n"
        "  - block: [{fail: {msg: broken}}]\n"
        "    rescue: [{debug: {msg: '{{ ansible_failed_result.msg }}'}}]\n"
        "    always: [{debug: {msg: always}}]\n"
        "  - {command: 'false', ignore_errors: true}\n"
        "  - {debug: {msg: skipped}, when: false}\n"
        "  - {command: 'true', register: r, until: r is succeeded, retries: 2, delay: 0, delegate_to: localhost}\n"
        "  - {meta: flush_handlers}\n"
        "  handlers: [{name: h, debug: {msg: handled}}]\n"
    ),
    "a failing task": Case(tasks("command: ls /nowhere", "debug: {msg: never}"), 2),
    "an undefined variable": Case(tasks("debug: {msg: '{{ nowhere.at.all }}'}"), 2),
    "a module that is not there": Case(tasks("no_such_module: {}"), 4),
    "a syntax error": Case("- hosts: all\n  tasks:\n  - debug: [\n", 4),
    "no list of plays": Case("hosts: all\n", 4),
    "an empty list": Case("[]\n", 4),
    "bytes of another kind": Case("- hosts: all\n  gather_facts: maybe\n", 4),
    "no host": Case("- hosts: all:!localhost\n  tasks: [{debug: {msg: never}}]\n", 1),
    "an unknown host": Case("- hosts: nosuch\n  tasks: [{debug: {msg: never}}]\n", 1),
    "a file that is not there": Case("", 1, files=("/playbook/none.yml",)),
    "two files": Case(tasks("debug: {msg: twice}"), files=(FILE, FILE)),
    "become on this container": Case(tasks("command: id", play="become: true"), 2),
    "an unreachable host": Case(tasks("ping:", play="vars: {ansible_connection: ssh, ansible_host: 192.0.2.1}"), 4),
    "what is not to be seen": Case(
        tasks("{command: echo hunter3, no_log: true}", "{debug: {msg: hunter3}, no_log: true}")
    ),
    "in the background": Case(tasks("{command: sleep 0, async: 20, poll: 1, register: r}", "debug: {var: r.finished}")),
    "roles and includes": Case(
        tasks(
            "{file: {path: /work/roles/web/tasks, state: directory}}",
            "{copy: {dest: /work/roles/web/tasks/main.yml, content: '[{copy: {content: x, dest: /work/c}}]'}}",
            "{copy: {dest: /work/more.yml, content: '[{debug: {msg: included}}]'}}",
            "include_role: {name: web}",
            "include_tasks: /work/more.yml",
        ),
        env={"ANSIBLE_ROLES_PATH": "/work/roles"},
    ),
    "a role's own action in the place of Ansible's": Case(
        tasks(
            "{file: {path: '/work/roles/web/{{ item }}', state: directory}, loop: [tasks, action_plugins]}",
            "{copy: {dest: /work/roles/web/tasks/main.yml, content: '[{fail: {msg: never}}, {debug: {msg: end}}]'}}",
            f"{{copy: {{dest: /work/roles/web/action_plugins/fail.py, content: {json.dumps(HARMLESS_FAIL)}}}}}",
            "{include_role: {name: web}}",
        ),
        env={"ANSIBLE_ROLES_PATH": "/work/roles"},
    ),
    "settings by environment": Case(
        tasks("command: echo one", "{debug: {msg: a}, tags: x}", "{debug: {msg: b}, tags: y}"),
        env={
            "ANSIBLE_STDOUT_CALLBACK": "oneline",
            "ANSIBLE_RUN_TAGS": "x",
            "ANSIBLE_VERBOSITY": "1",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        },
    ),
    "a setting that is wrong": Case(tasks("debug: {msg: hi}"), 5, env={"ANSIBLE_FORKS": "many"}),
    "a configuration that is a secret": Case(
        tasks("command: echo one"),
        env={"ANSIBLE_CONFIG": "/run/secrets/ansible.cfg"},
        secrets={"ansible.cfg": b"[defaults]\ninventory=/etc/ansible/hosts.yml\nstdout_callback = minimal\n"},
    ),
    "a vault": Case(
        tasks("debug: {var: word}", play=f"vars:\n    word: {VAULTED.strip()}"),
        env={"ANSIBLE_VAULT_PASSWORD_FILE": "/run/secrets/vault"},
        secrets={"vault": b"hunter2"},
    ),
    "a vault without its password": Case(
        tasks("debug: {msg: never}"), 1, env={"ANSIBLE_VAULT_PASSWORD_FILE": "/run/secrets/vault"}
    ),
    "its debug lines": Case(
        tasks("debug: {msg: hi}"), env={"ANSIBLE_DEPRECATION_WARNINGS": "1", "ANSIBLE_VERBOSITY": "3"}
    ),
    "collections": Case(tasks("debug: {msg: \"{{ ['a', 'b'] | community.general.lists_union(['c']) }}\"}")),
}


def finish(box: Box, case: Case) -> Finished:
    """Send the secrets, release, wait."""
    for name, value in case.secrets.items():
        box.send(f"agp1 secret {name} {base64.b64encode(value).decode()}")
    box.release()
    return box.finish()


def comparable(finished: Finished) -> tuple[int, str]:
    """Exit code and output; times of day, durations, process numbers and random names are made equal."""
    text = re.sub(r"\d+-\d+-\d+[ T]\d+:\d+:\d+(\.\d+)?", "<time>", finished.text)
    text = re.sub(r"\d+:\d\d:\d\d(\.\d+)?|\d+\.\d\ds", "<duration>", text)
    text = re.sub(r"ansible-(tmp|local)-[\w.-]+", "<name>", text)
    text = re.sub(r"(?m)^(\s*)[0-9a-f]{40,}$", r"\1<cipher>", text)
    return finished.exit_code, re.sub(r"\b(j?\d{9,}\.\d+|EXEC|<localhost>).*", "<varies>", text)


@pytest.mark.parametrize("name", CASES)
def test_a_playbook_runs_warm_as_it_runs_cold(ansible: Boxes, name: str) -> None:
    """The same recap, exit code and output of every task."""
    case = CASES[name]
    warm_command, cold_command = ("ansible-playbook", *case.files), ("env", "ansible-playbook", *case.files)
    place = bool(case.secrets)
    with (
        ansible.open(case.playbook, command=warm_command, env=case.env, secrets_place=place) as warm_box,
        ansible.open(case.playbook, command=cold_command, env=case.env, secrets_place=place) as cold_box,
    ):
        wait_until_warm(warm_box)
        warm, cold = finish(warm_box, case), finish(cold_box, case)

    assert comparable(warm) == comparable(cold)
    assert warm.exit_code == case.exit_code, warm.text


def wait_until_warm(box: Box) -> None:
    """Until the interpreter has closed the descriptor that told it to wait, which it does when all is loaded."""
    while not box.holds("ls -l /proc/[0-9]*/exe | grep -q python && ! ls -l /proc/[0-9]*/fd/9 | grep -q agp-entry"):
        time.sleep(0.1)


def test_a_release_that_comes_at_once_finds_the_same_ansible(ansible: Boxes) -> None:
    """A container that nobody kept warm runs its playbook as well: Ansible loads the rest itself."""
    with ansible.open(tasks("command: echo one")) as box:
        nonce = box.release()
        finished = box.finish()

    assert finished.exit_code == 0
    assert finished.control.startswith(started(nonce))
    assert "changed=1" in finished.text


def test_all_that_is_loaded_ahead_is_there(ansible: Boxes) -> None:
    """Ansible loads without a word, and the modules that were packed with the image are of this very Ansible."""
    script = (
        "import os, sys, threading\nimport ansible.constants\n"
        "sys.path.insert(0, os.getcwd())\nimport agp_ansible\nstill_right = agp_ansible.warm_up(lambda: False)\n"
        "packed = os.listdir(ansible.constants.DEFAULT_LOCAL_TMP + '/ansiballz_cache')\n"
        "print(still_right(), len(packed), threading.active_count())\n"
    )
    with ansible.open(script, command=("python3", "-c", script)) as box:
        box.release()
        assert box.finish().text == "True 5 1\n"


def test_an_ansible_that_waits_is_loaded_and_the_same_process_runs_the_playbook(ansible: Boxes) -> None:
    """Its YAML parser is in memory before the release, and no program is started in its place (its stack stays)."""
    stacks = "cat /proc/[0-9]*/maps 2>/dev/null | grep -F '[stack]'"
    with ansible.open(tasks(f'shell: "{stacks} | grep -qxFf /work/before"')) as box:
        wait_until_warm(box)
        assert box.holds("grep -q /_yaml /proc/[0-9]*/maps")
        assert box.holds(
            "for p in /proc/[0-9]*; do grep -q /_yaml $p/maps && grep -F '[stack]' $p/maps; done >/work/before;"
            " [ -s /work/before ]"
        )
        box.release()
        finished = box.finish()

    assert finished.exit_code == 0, finished.text


PLUGIN = "open('/work/imported', 'a').close(); print('imported')"
KINDS = ("CALLBACK", "CONNECTION", "BECOME", "VARS", "ACTION", "FILTER", "LOOKUP", "STRATEGY")
IMPORTED_BY_IT = {"CALLBACK", "CONNECTION", "BECOME", "VARS", "FILTER"}  # the others only by their name


@pytest.mark.parametrize("kind", KINDS)
def test_no_plugin_of_the_operator_is_imported_before_the_release(
    client: docker.DockerClient, tmp_path: Path, kind: str
) -> None:
    """It is code that runs at its import, as the playbook's own it has to wait."""
    folder = tmp_path / "plugins"
    playbook = tasks("debug: {msg: \"{{ 'a' | upper }} {{ lookup('env', 'HOME') }}\"}")
    child = child_of(client, f"agp/runner-ansible:{TAG}", "mkdir /operator", f'echo "{PLUGIN}" >/operator/mine.py')
    folder.mkdir()
    with (
        child as image,
        boxes_of(client, "ansible", folder, image).open(playbook, env={f"ANSIBLE_{kind}_PLUGINS": "/operator"}) as box,
    ):
        wait_until_warm(box)
        assert box.holds("[ ! -e /work/imported ] && grep -q /_yaml /proc/[0-9]*/maps")
        box.release()
        finished = box.finish()

    assert finished.exit_code == 0, finished.text
    assert ("imported" in finished.text) == (kind in IMPORTED_BY_IT)


VARS_BESIDE_AN_INVENTORY = (
    "mkdir -p /inventory/group_vars/web /inventory/host_vars",
    "printf 'web: {hosts: {h1: {ansible_connection: local}}}' >/inventory/hosts.yml",
    "echo 'of_group: 1' >/inventory/group_vars/web/vars.yml",
    "echo 'of_all: 2' >/inventory/group_vars/all.yml",
    "echo 'of_host: 3' >/inventory/host_vars/h1.yml",
)


def test_the_variables_beside_an_inventory_are_read(client: docker.DockerClient, tmp_path: Path) -> None:
    """Of groups, of all and of hosts: an Ansible whose plugins for them were loaded ahead once read none."""
    playbook = tasks("debug: {msg: '{{ of_group }} {{ of_all }} {{ of_host }}'}")
    with child_of(client, f"agp/runner-ansible:{TAG}", *VARS_BESIDE_AN_INVENTORY) as image:
        boxes = boxes_of(client, "ansible", tmp_path, image)
        with boxes.open(playbook, env={"ANSIBLE_INVENTORY": "/inventory"}) as box:
            wait_until_warm(box)
            box.release()
            finished = box.finish()
    assert finished.exit_code == 0, finished.text
    assert "msg: 1 2 3" in finished.text


def test_an_ansible_playbook_of_a_child_image_starts_after_the_release(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    """A program of the child's own in the place of Ansible's does nothing ahead."""
    wrapper = r"echo '#!/bin/sh\necho mine' >/usr/bin/ansible-playbook"
    with child_of(client, f"agp/runner-ansible:{TAG}", wrapper) as image:
        boxes = boxes_of(client, "ansible", tmp_path, image)
        with boxes.open("") as box:
            box.hang_up()
            assert box.finish() == Finished(125, b"", b"")
        assert boxes.run("").output == b"mine\n"
