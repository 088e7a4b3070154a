"""Ansible callback: tells the agent of failed tasks and of the recap, beside what is printed.

It speaks on the control channel that `agp-entry` left open (see images/README.md). Where there is none, it is silent.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ansible.plugins.callback import CallbackBase

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook.task import Task

DOCUMENTATION = """
name: agp_events
type: aggregate
short_description: failed tasks and recap for the agent
description:
  - Writes a line for every task that failed and was neither ignored nor rescued, and one for every host of the recap.
  - Nothing is printed, and no failure of it changes the run.
"""

_CHANNEL = "AGP_EVENTS"
_TEXT_MAX_CHARS = 1000
"""The agent takes a text of that length for one that was cut."""
_FAILURES_MAX = 20
_HOSTS_MAX = 500
_COUNTS = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")


class CallbackModule(CallbackBase):
    """Watches for failures, and for the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "agp_events"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._channel = _take_channel()
        self._failures = 0

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002
        """Tell of it, unless the playbook goes on all the same."""
        if not ignore_errors and not _is_rescued(result.task):
            self._tell_failure("failed", result)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Tell of it, unless the playbook goes on all the same."""
        if not result.task_fields.get("ignore_unreachable"):
            self._tell_failure("unreachable", result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Tell how many tasks ended how, host by host."""
        for host in sorted(stats.processed)[:_HOSTS_MAX]:
            counts = stats.summarize(host)
            numbers = {name.replace("failures", "failed"): counts[name] for name in _COUNTS}
            self._tell({"recap": {"host": _cut(host), **numbers}})

    def _tell_failure(self, kind: str, result: CallbackTaskResult) -> None:
        self._failures += 1
        if self._failures <= _FAILURES_MAX:
            host, task, message = result.host.get_name(), result.task_name, _message(result.result)
            failure = {"kind": kind, "host": _cut(host), "task": _cut(task), "message": _cut(message)}
            self._tell({"failure": failure})

    def _tell(self, event: dict[str, object]) -> None:
        if self._channel is None:
            return
        line = f"agp1 event {json.dumps(event, ensure_ascii=False)}\n".encode(errors="replace")
        try:
            while line:
                line = line[os.write(self._channel, line) :]
        except OSError:
            self._channel = None


def _take_channel() -> int | None:
    """The descriptor of the channel; what this process starts inherits neither it nor its name."""
    number = os.environ.pop(_CHANNEL, "")
    try:
        os.set_inheritable(int(number), False)  # noqa: FBT003 -- it takes no name
    except (ValueError, OSError):
        return None
    return int(number)


def _is_rescued(task: Task) -> bool:
    """Whether it stands in a block, at any depth, that has a rescue for it."""
    child, parent = task, task._parent
    while parent is not None:
        if getattr(parent, "rescue", None) and any(one._uuid == child._uuid for one in parent.block):
            return True
        child, parent = parent, parent._parent
    return False


def _message(result: dict[str, Any]) -> str:
    """Why, in the module's own words; of a loop those of the first item that failed."""
    if "censored" in result:
        return "details are hidden (no_log)"
    items = [item for item in result.get("results") or () if isinstance(item, dict)]
    if failed := next((item for item in items if item.get("failed") or item.get("unreachable")), None):
        return _message(failed)
    said = result.get("msg") or "no reason given"
    message = " ".join(map(str, said)) if isinstance(said, list) else str(said)
    if not result.get("rc"):
        return message
    lines = [line for name in ("stderr", "stdout") for line in reversed(str(result.get(name) or "").splitlines())]
    last = next((line for line in lines if line.strip()), "")
    return f"{message} ({result['rc']}): {last}" if last and message == "non-zero return code" else message


def _cut(text: object) -> str:
    return str(text)[:_TEXT_MAX_CHARS]
