"""What stands in the journal, as values."""

from dataclasses import dataclass
from enum import StrEnum

from agp_agent.lifecycle import Outcome, Reason, State
from agp_agent.models import TaskStatus
from agp_agent.output import Output


class Delivery(StrEnum):
    """How the delivery of a result stands."""

    PENDING = "pending"
    ACKNOWLEDGED = "acknowledged"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """An order as it arrives, before it has a number."""

    task_id: str
    playbook_name: str
    playbook: bytes
    playbook_sha256: str
    body_sha256: str
    runner: str | None
    idempotency_key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """How much is taken on. ``slots``: tasks that can run at once now, 0 while the engine is away."""

    slots: int
    max_queued: int
    rerun_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a task, as the journal has it. Times are wall-clock milliseconds since 1970."""

    seq: int
    run_id: str
    task_id: str
    attempt: int
    state: State
    playbook_name: str
    playbook_sha256: str
    playbook: bytes
    runner: str | None
    tries: int
    slot: str | None
    container_id: str | None
    image: str | None
    image_digest: str | None
    nonce: str | None
    timeout_s: float | None
    memory_bytes: int | None
    boot_id: str | None
    released_boot_s: float | None
    accepted_at_ms: int
    started_at_ms: int | None
    cancel_requested: bool
    asked: Reason | None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the 202 says. ``replayed``: the same Idempotency-Key had this answer before, and nothing new runs."""

    status: TaskStatus
    run_id: str = ""
    attempt: int = 0
    replayed: bool = False
    begun: Attempt | None = None
    """It has its reservation: it stands there as running, and waits for its release."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued attempt, without its playbook."""

    run_id: str
    runner: str | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Release:
    """What is written down before a container is told to start the playbook."""

    container_id: str
    image_digest: str
    nonce: str
    boot_id: str
    released_boot_s: float
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class Start:
    """What is written down where an attempt goes from the queue straight into a container that waits for it."""

    slot: str
    image: str
    timeout_s: float
    memory_bytes: int
    release: Release


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place and a container for an order that comes in. It is theirs unless others wait that could have the place."""

    run_id: str
    start: Start
    full_runners: tuple[str, ...] = ()
    """Those that wait for one of these could not have it."""


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """What is known of an attempt whose row was lost."""

    run_id: str
    task_id: str
    attempt: int
    playbook_name: str
    playbook_sha256: str
    runner: str | None


@dataclass(frozen=True, slots=True)
class DueResult:
    """A result that is to be delivered now. ``deliveries`` were tried before."""

    seq: int
    run_id: str
    task_id: str
    attempt: int
    outcome: Outcome
    error: str | None
    output: Output
    deliveries: int
    accepted_at_ms: int = 0
    traceparent: str | None = None
