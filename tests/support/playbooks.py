"""Playbooks that more than one suite sends."""

from typing import Final

WAITING: Final = """\
echo before
until [ -e /work/go ]; do sleep 0.05; done
echo after
exit 7
"""
"""Prints ``before``, waits for ``EngineSide.let_go``, prints ``after`` and ends with exit code 7."""

WAITED: Final = {"status": "failed", "output": "before\nafter\n", "error": "exit code 7"}
"""What becomes of it."""

PLAYS: Final = """\
- name: Greet
  hosts: all
  gather_facts: false
  tasks:
    - name: Say hello
      ansible.builtin.debug:
        msg: hello from {{ inventory_hostname }}
"""
"""The smallest Ansible playbook that does something."""
