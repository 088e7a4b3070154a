"""Which results are right for what a machine really did: strict, and without any of the agent's own code."""

import re
from dataclasses import dataclass, field
from typing import Final

from agp_agent.engine import Stream
from agp_agent.lifecycle import State
from agp_agent.models import TaskResult
from fakes.fake_host import Container

OUTPUT_LIMIT_BYTES: Final = 2048
TIMEOUT_S: Final = 30.0
GRACE_S: Final = 5.0
MAX_TRIES: Final = 3
_ENGINE_STOP_CODES: Final = (137, 143, 255)
_SIGNAL_EXIT_BASE: Final = 128
_NOTICE_S: Final = 12.0
"""How long it may take an agent to notice that the engine is there, and to take up what it finds."""
_SLACK_S: Final = 2.0
_GAP: Final = re.compile(
    r"(?P<head>.*?)\[agp-agent: (?:at least \d+|an unknown number of) bytes omitted\]\n(?P<tail>.*)", re.DOTALL
)


@dataclass(frozen=True)
class Row:
    """An attempt as it stands in the journal's file, with its row of the outbox."""

    run_id: str
    task_id: str
    state: State
    slot: str | None
    container_id: str | None
    cancel_requested: bool
    tries: int
    outcome: str | None
    reason: str | None
    error: str | None
    exit_code: int | None
    is_open: bool
    delivery: str | None

    def __post_init__(self) -> None:
        """SQLite knows no enums and no booleans."""
        object.__setattr__(self, "state", State(self.state))
        object.__setattr__(self, "cancel_requested", bool(self.cancel_requested))
        object.__setattr__(self, "is_open", bool(self.is_open))

    @property
    def end(self) -> tuple[object, ...]:
        """How it ended."""
        return self.outcome, self.reason, self.error, self.exit_code


@dataclass
class Fate:
    """What happened to one attempt in the world outside the agent. The sets hold ids of containers."""

    run_id: str
    container: Container | None = field(default=None, repr=False)
    """In which its playbook started."""
    released_to: list[str] = field(default_factory=list)
    """Every container that the journal named for it, one after another."""
    released_s: float = 0.0
    ended_s: float | None = None
    able_s: float = 0.0
    """Since when, at its end, there had been an agent, an engine that it reached, and a journal that it could write."""
    cancelled_s: float | None = None
    """When its cancel stood on disk."""
    stopped: set[str] = field(default_factory=set)
    """By the agent: a signal reached them."""
    killed: set[str] = field(default_factory=set)
    """By an operator."""
    removed: set[str] = field(default_factory=set)
    """By an operator."""
    outlived: set[str] = field(default_factory=set)
    """The engine's process that made them was replaced."""
    taken_along: set[str] = field(default_factory=set)
    """An engine without live-restore killed them when it came back."""
    unmarked: set[str] = field(default_factory=set)
    """The engine lost what they had said, their start marker with it."""

    @property
    def last(self) -> str:
        """The container that counts in the end."""
        return self.released_to[-1] if self.released_to else ""

    @property
    def exit_code(self) -> int | None:
        """Of its playbook; None where it never started or has not ended."""
        return self.container.ended.code if self.container and self.container.ended else None

    @property
    def printed(self) -> str:
        """All that its playbook printed."""
        return self.container.log[Stream.OUTPUT].decode() if self.container else ""


def error_in(row: Row, result: TaskResult, fate: Fate) -> str | None:
    """Say what is wrong with a result; None where it tells exactly what happened."""
    if not is_legal(row, fate):
        return f"the outcome {row.outcome}/{row.reason}, {row.error!r}"
    if not _is_output(result.output, fate):
        return "the output"
    if fate.container is not None and fate.ended_s is not None and fate.ended_s > _latest_end_s(fate):
        return f"it ended at {fate.ended_s:g} s, long after its time"
    return None


def _latest_end_s(fate: Fate) -> float:
    """When a playbook must have ended at the latest, by its deadline or by its cancel."""
    due_s = fate.released_s + TIMEOUT_S
    if fate.cancelled_s is not None:
        due_s = min(due_s, max(fate.cancelled_s, fate.released_s))
    return max(due_s, fate.able_s + _NOTICE_S) + GRACE_S + _SLACK_S


def is_legal(row: Row, fate: Fate) -> bool:
    """Whether an attempt may have ended so, after what happened to it."""
    match row.outcome:
        case "lost":
            return (row.error or "").startswith("lost: ") and _may_be_lost(fate)
        case "cancelled":
            return row.cancel_requested and row.error == "cancelled" and _was_stopped(fate)
        case "timed_out":
            return row.error == f"timed out after {TIMEOUT_S:g} s" and _was_stopped(fate) and _took_long(fate)
        case "error":  # its container could not be made, or ended again and again before the playbook
            return fate.container is None and (row.tries >= MAX_TRIES - 1 or bool(fate.removed))
        case "rejected":
            return fate.container is None and not fate.released_to
        case _:
            return row.end == _end_by_itself(fate)


def _end_by_itself(fate: Fate) -> tuple[object, ...] | None:
    """How it ended where nobody but an operator or the kernel did it; None where it did not end so."""
    code = fate.exit_code
    if fate.container is None or fate.container.ended is None or code is None:
        return None
    if fate.container.ended.oom_killed:
        return "failed", "oom_killed", "killed: out of memory (limit 512 MiB)", code
    if code < _SIGNAL_EXIT_BASE:
        return ("failed", "exit_code", f"exit code {code}", code) if code else ("succeeded", "exit_code", None, 0)
    if fate.last in fate.stopped or fate.last in fate.taken_along:
        return None
    if fate.last in fate.killed:
        return "failed", "killed_externally", "killed from outside", code
    name = {137: "SIGKILL", 143: "SIGTERM"}[code]
    return "failed", "exit_code", f"exit code {code} ({name})", code


def _may_be_lost(fate: Fate) -> bool:
    """Only a container that somebody removed, or an engine that was replaced, takes the truth away."""
    if fate.last in fate.removed:
        return True
    if fate.last not in fate.outlived:
        return False
    return fate.container is None or fate.exit_code in _ENGINE_STOP_CODES or fate.last in fate.unmarked


def _was_stopped(fate: Fate) -> bool:
    """Whether the agent stopped it before its end, or it never began."""
    if fate.container is None:
        return True
    return fate.exit_code is not None and (fate.last in fate.stopped or fate.exit_code >= _SIGNAL_EXIT_BASE)


def _took_long(fate: Fate) -> bool:
    return bool(fate.released_to) and (fate.ended_s is None or fate.ended_s - fate.released_s >= TIMEOUT_S - 1)


def _is_output(output: str, fate: Fate) -> bool:
    """Byte for byte, head and tail with the number of what is between, or, where something is gone, said to be."""
    printed = fate.printed
    if output == expected_output(printed):
        return True
    stated = _GAP.fullmatch(output)
    if stated is None or fate.last not in fate.removed | fate.outlived:
        return False
    return printed.startswith(stated["head"].removesuffix("\n")) and stated["tail"] in printed


def expected_output(printed: str) -> str:
    """Return what the dashboard is to get of an output in ASCII."""
    omitted = len(printed) - OUTPUT_LIMIT_BYTES
    if omitted <= 0:
        return printed
    half = OUTPUT_LIMIT_BYTES // 2
    head, tail = printed[:half], printed[-half:]
    line_end = "" if head.endswith("\n") else "\n"
    return f"{head}{line_end}[agp-agent: {omitted} bytes omitted]\n{tail}"
