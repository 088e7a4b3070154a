"""Playbooks to begin with, one for each runner."""

from typing import Final

SAMPLES: Final = {
    "hello.sh": (
        'echo "hello from $(uname -n), as user $(id -u)"\nfor n in 1 2 3 4 5; do echo "step $n"; sleep 1; done\n'
    ),
    "facts.py": (
        "import platform, shutil\n\n"
        'print("\\033[1mPython\\033[0m", platform.python_version(), "on", platform.release())\n'
        'for place in ("/", "/work", "/tmp"):\n'
        "    usage = shutil.disk_usage(place)\n"
        '    print(f"\\033[36m{place:6}\\033[0m {usage.free / 2**20:9.0f} MiB free")\n'
    ),
    "site.yml": (
        "- name: Look around\n  hosts: localhost\n  tasks:\n"
        "    - name: Tell who we are\n      ansible.builtin.debug:\n"
        '        msg: "{{ ansible_facts.distribution }} {{ ansible_facts.distribution_version }}"\n'
        "    - name: Write a file\n      ansible.builtin.copy:\n"
        "        content: hello\n        dest: /work/hello\n        mode: '0644'\n"
    ),
    "failing.yml": (
        "- name: Fail on purpose\n  hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - name: Render the config\n      ansible.builtin.template:\n"
        "        src: /nowhere/app.j2\n        dest: /work/app.conf\n        mode: '0644'\n"
    ),
}
"""Content by name: the suffix chooses the runner."""
