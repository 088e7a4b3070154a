"""The Ansible runner: what a playbook's author expects, under the full lockdown."""

import pytest

from images.box import Boxes, Finished

MESSAGE_OF_THE_DAY = """\
- name: Write the message of the day
  hosts: {hosts}
  vars:
    greeting: "hello from"
  tasks:
    - name: Make a template
      ansible.builtin.copy:
        content: "{{% raw %}}{{{{ greeting }}}} {{{{ ansible_facts.distribution }}}}{{% endraw %}}"
        dest: /work/motd.j2
        mode: "0644"
    - name: Render it
      ansible.builtin.template:
        src: /work/motd.j2
        dest: /work/motd
        mode: "0644"
    - name: Read it
      ansible.builtin.command: cat /work/motd
      register: motd
      changed_when: false
    - name: Show it
      ansible.builtin.debug:
        var: motd.stdout
"""


def run_with_inventory(ansible: Boxes, inventory: str, playbook: str) -> Finished:
    """Run a playbook with an inventory of its own, named the way the catalog names one."""
    script = f"printf '{inventory}' >/work/inventory && exec ansible-playbook /playbook/playbook.yml"
    with ansible.open(playbook, command=("sh", "-c", script), env={"ANSIBLE_INVENTORY": "/work/inventory"}) as box:
        box.release()
        return box.finish()


@pytest.mark.parametrize("hosts", ["all", "localhost"])
def test_facts_templates_and_counts_work_on_localhost(ansible: Boxes, hosts: str) -> None:
    """A newcomer's first playbook does what it says, whichever of the two names it uses."""
    finished = ansible.run(MESSAGE_OF_THE_DAY.format(hosts=hosts))

    assert finished.exit_code == 0, finished.text
    assert "motd.stdout: hello from Debian" in finished.text
    recap = finished.text.splitlines()[-2]
    assert recap.split()[:3] == ["localhost", ":", "ok=5"]
    assert "changed=2" in recap
    assert "failed=0" in recap
    assert "WARNING" not in finished.text


def test_a_failing_task_is_exit_code_2_and_shows_why(ansible: Boxes) -> None:
    """The output names the task, what the command printed, and the counts."""
    finished = ansible.run("- hosts: all\n  gather_facts: false\n  tasks:\n  - name: Break\n    command: ls /nowhere\n")

    assert finished.exit_code == 2
    assert "TASK [Break]" in finished.text
    assert "No such file or directory" in finished.text
    assert "failed=1" in finished.text


@pytest.mark.parametrize(
    "more",
    ["", "become_method: su", "vars: {ansible_become_password: guessed}", "connection: ansible.builtin.local"],
)
def test_become_on_localhost_says_that_there_is_no_root(ansible: Boxes, more: str) -> None:
    """Whichever way it asks: the task fails with one sentence that says why, and what to do."""
    finished = ansible.run(f"- hosts: all\n  become: true\n  {more}\n  tasks: [{{command: id}}]\n")

    assert finished.exit_code == 2
    assert "there is no root in this container and no way to become another user" in finished.text
    assert "use it for the machines of an inventory" in finished.text


@pytest.mark.parametrize("command", ["sudo -n id", "su -c id", "doas id"])
def test_a_command_that_wants_root_says_it_too(ansible: Boxes, command: str) -> None:
    """In a playbook's own words; none of them does anything."""
    finished = ansible.look(command)

    assert finished.exit_code == 1
    assert finished.text.startswith(f"{command.split(maxsplit=1)[0]}: there is no root in this container")


@pytest.mark.parametrize(
    "pattern", ["nosuchgroup", "web*", "localhost,nosuchgroup", "all:!localhost", "ungrouped:&web"]
)
def test_a_pattern_that_matches_nothing_is_an_error(ansible: Boxes, pattern: str) -> None:
    """Where Ansible itself would end with success, the runner ends with 1 and one line that says why."""
    finished = ansible.run(f"- hosts: '{pattern}'\n  tasks: [{{debug: {{msg: hi}}}}]\n")

    assert finished.exit_code == 1
    errors = [line for line in finished.text.splitlines() if line.startswith("[ERROR]: ")]
    assert len(errors) == 1
    assert "pattern" in errors[0]
    assert "msg: hi" not in finished.text


def test_an_empty_group_is_an_error_only_while_the_setting_says_so(ansible: Boxes) -> None:
    """Both rules about unmatched patterns follow Ansible's own setting, so an operator can relax them."""
    playbook = "- hosts: all:!localhost\n  tasks: [{debug: {msg: hi}}]\n"
    finished = ansible.run(playbook, env={"ANSIBLE_HOST_PATTERN_MISMATCH": "warning"})

    assert finished.exit_code == 0
    assert "skipping: no hosts matched" in finished.text


def test_the_inventory_of_the_catalog_replaces_the_built_in_one(ansible: Boxes) -> None:
    """Ansible's own environment variable does it, and localhost stays reachable by name."""
    playbook = "- hosts: a,b,localhost\n  gather_facts: false\n  tasks: [{debug: {msg: '{{ inventory_hostname }}'}}]\n"
    finished = run_with_inventory(ansible, "a\\nb\\n", playbook)

    assert finished.exit_code == 0, finished.text
    assert [f"msg: {name}" in finished.text for name in ("a", "b", "localhost")] == [True] * 3


@pytest.mark.parametrize(
    ("playbook", "exit_code"),
    [
        ("- hosts: all\n  tasks:\n  - debug: [\n", 4),
        ("- hosts: all\n  tasks:\n  - no_such_module: x\n", 4),
        ("- tasks: []\n", 4),
    ],
)
def test_a_playbook_that_cannot_be_read_is_exit_code_4(ansible: Boxes, playbook: str, exit_code: int) -> None:
    """And the message names the place in the playbook."""
    finished = ansible.run(playbook)

    assert finished.exit_code == exit_code
    assert "/playbook/playbook.yml" in finished.text


def test_an_unreachable_host_is_exit_code_4(ansible: Boxes) -> None:
    """No network here: ssh says so, and Ansible counts it."""
    playbook = "- hosts: all\n  gather_facts: false\n  tasks: [{ping: {}}]\n"
    finished = run_with_inventory(ansible, "192.0.2.1\\n", playbook)

    assert finished.exit_code == 4
    assert "UNREACHABLE" in finished.text
    assert "unreachable=1" in finished.text


def test_results_are_plain_text_made_for_reading(ansible: Boxes) -> None:
    """No colours, no cows, results as YAML."""
    playbook = "- hosts: all\n  gather_facts: false\n  tasks: [{debug: {msg: [one, two]}}, {command: 'false'}]\n"
    finished = ansible.run(playbook, env={"TERM": "xterm-256color"})

    assert b"\x1b" not in finished.output
    assert "(oo)" not in finished.text
    assert "    msg:\n    - one\n    - two\n" in finished.text


def test_a_failed_run_leaves_no_retry_file(ansible: Boxes) -> None:
    """Only Ansible's own folder appears in the working directory."""
    playbook = "- hosts: all\n  gather_facts: false\n  tasks: [{command: 'false'}]\n"
    listing = "ansible-playbook /playbook/playbook.yml >/dev/null; ls -A /work"
    with ansible.open(playbook, command=("sh", "-c", listing)) as box:
        box.release()
        finished = box.finish()

    assert finished.text.split() == [".ansible"]


def test_term_ends_a_running_playbook(ansible: Boxes) -> None:
    """Ansible is told to stop and does, before the engine's KILL."""
    playbook = "- hosts: all\n  gather_facts: false\n  tasks: [{name: Long, command: sleep 3600}]\n"
    with ansible.open(playbook) as box:
        box.release()
        box.wait_for_output(b"TASK [Long]")
        box.signal("SIGTERM")
        finished = box.finish()

    assert finished.exit_code not in {0, 137}


def test_host_keys_are_checked(ansible: Boxes) -> None:
    """A machine that nobody vouched for is not talked to."""
    finished = ansible.look("ansible-config dump | grep ^HOST_KEY_CHECKING")

    assert finished.text == "HOST_KEY_CHECKING(/etc/ansible/ansible.cfg) = True\n"


@pytest.mark.parametrize(
    "plugin",
    ["ansible.posix.synchronize", "ansible.windows.win_ping", "community.general.ini_file", "cisco.ios.ios_facts"],
)
def test_the_collections_that_people_expect_are_there(ansible: Boxes, plugin: str) -> None:
    """Modules from beyond Ansible's core are found and can be documented."""
    finished = ansible.look(f"ansible-doc -t module -s {plugin}")

    assert finished.exit_code == 0, finished.text


def test_a_module_of_a_collection_and_a_filter_run(ansible: Boxes) -> None:
    """Collections work although their byte code was left out of the image."""
    playbook = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - community.general.ini_file: {path: /work/app.ini, section: main, option: port, value: "8080", mode: "0644"}
    - ansible.builtin.debug:
        msg: "{{ {'a': [{'b': 1}, {'b': 2}]} | community.general.json_query('a[*].b') }}"
    - ansible.builtin.debug:
        msg: "{{ '10.0.0.0/24' | ansible.utils.ipaddr('netmask') }}"
"""
    finished = ansible.run(playbook)

    assert finished.exit_code == 0, finished.text
    assert "    msg:\n    - 1\n    - 2\n" in finished.text
    assert "msg: 255.255.255.0" in finished.text


def test_the_clients_for_other_machines_are_there(ansible: Boxes) -> None:
    """Over ssh, with a password where it must be, and over WinRM."""
    finished = ansible.look("which ssh sshpass rsync && python3 -c 'import winrm, requests_ntlm; print(42)'")

    assert finished.text.split() == ["/usr/bin/ssh", "/usr/bin/sshpass", "/usr/bin/rsync", "42"]


def test_ansible_itself_is_already_compiled(ansible: Boxes) -> None:
    """On a read-only file system every start would else compile it anew."""
    finished = ansible.look(
        "python3 -v -c 'import ansible.cli.playbook' 2>&1 | grep \"code object from '\" | grep -vc '[.]pyc'"
    )

    assert finished.text.strip() == "0"
