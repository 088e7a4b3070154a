"""What must not pile up: counted while nothing runs, and held against what a fresh agent has."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from campaign.book import LEAKED, Book
from support.agent_process import AgentProcess

_PATIENCE_S: Final = 150.0
"""A left-over container is removed when it is a minute old, by a look once a minute."""
_PAUSE_S: Final = 0.2
MORE: Final = {"file descriptors": 12, "threads": 12}
"""Connections kept for later and threads of the pools, which come with the work and stay within their bounds."""


def count(agent: AgentProcess) -> dict[str, int]:
    """Everything of an agent that could pile up, but for containers that wait for a task, and their slots."""
    process, waiting = Path(f"/proc/{agent.process.pid}"), agent.waiting()
    return {
        "containers": len(agent.engine.containers(agent.instance)) - waiting,
        "volumes": len(agent.engine.volumes(agent.instance)),
        "slots": len(list((agent.state / "slots").iterdir())) - waiting,
        "spool files": len(list((agent.state / "spool").iterdir())),
        "file descriptors": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "children": sum(len(children.read_text().split()) for children in process.glob("task/*/children")),
    }


def what_is_open(agent: AgentProcess) -> str:
    """Its open files by their kinds, for whoever looks for a leak."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{agent.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            kinds[str(entry.readlink()).split(":")[0]] += 1
    return ", ".join(f"{number} x {kind}" for kind, number in kinds.most_common())


def check(agent: AgentProcess, fresh: Mapping[str, int], book: Book) -> dict[str, int]:
    """Wait until there is nothing too much; what stays is a leak. Return the last count."""
    give_up_s = time.monotonic() + _PATIENCE_S
    while True:
        now = count(agent)
        too_many = {name: number for name, number in now.items() if number > fresh[name] + MORE.get(name, 0)}
        if not too_many:
            return now
        if time.monotonic() > give_up_s:
            for name, number in too_many.items():
                book.violate(LEAKED, name, f"{number} where a fresh agent has {fresh[name]}: {what_is_open(agent)}")
            return now
        time.sleep(_PAUSE_S)
