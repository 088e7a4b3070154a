"""Ansible callback: a play for which no host is left ends the run with an error.

Ansible reports an unknown name as an error when `host_pattern_mismatch = error`, but a pattern of known names that
leaves nobody over (`all:!localhost`, an empty group) is still "skipping: no hosts matched" and exit code 0. Both are
governed by the same setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible import constants
from ansible.plugins.callback import CallbackBase

if TYPE_CHECKING:
    from ansible.playbook.play import Play

DOCUMENTATION = """
name: agp_no_hosts
type: aggregate
short_description: a play without hosts is an error
description:
  - Ends the run with exit code 1 when the pattern of a play matches no host.
  - Does so only while the setting HOST_PATTERN_MISMATCH is V(error).
"""


class CallbackModule(CallbackBase):
    """Watches for plays without hosts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "agp_no_hosts"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._pattern = ""

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Remember the pattern of the play that begins."""
        hosts = play.hosts
        self._pattern = hosts if isinstance(hosts, str) else ",".join(str(part) for part in hosts)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """End the run: an exception of a callback is only a warning to Ansible, an exit is not."""
        if constants.HOST_PATTERN_MISMATCH != "error":
            return
        self._display.error(
            f"No host of the inventory matches the pattern '{self._pattern}' of this play, so nothing would be done. "
            "Correct `hosts:`, or give the runner an inventory with such hosts."
        )
        raise SystemExit(1)
