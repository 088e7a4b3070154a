"""Orders and results for tests that talk to the journal directly."""

import hashlib
from typing import Final

from agp_agent.journal import Admission, Journal, NewAttempt, Release
from agp_agent.lifecycle import Outcome, Reason, Verdict
from agp_agent.output import Output

SUCCESS: Final = Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0)
ROOM: Final = Admission(slots=1000, max_queued=1000)
PRINTED: Final = Output(b"hi\n", b"", 3)


def order(task_id: str = "t", content: str = "print hi\n", runner: str | None = "shell", **more: str) -> NewAttempt:
    """Return an order as the intake would make it."""
    playbook = content.encode()
    return NewAttempt(
        task_id=task_id,
        playbook_name="a.sh",
        playbook=playbook,
        playbook_sha256=hashlib.sha256(playbook).hexdigest(),
        body_sha256=hashlib.sha256(task_id.encode() + playbook).hexdigest(),
        runner=runner,
        idempotency_key=more.get("key"),
    )


def release(container_id: str = "c1", **changes: object) -> Release:
    """Return what is noted before a container is released."""
    fields: dict[str, object] = {
        "container_id": container_id,
        "image_digest": "sha256:1",
        "nonce": "0" * 32,
        "boot_id": "boot",
        "released_boot_s": 12.5,
        "started_at_ms": 1_750_000_000_500,
    }
    return Release(**(fields | changes))  # type: ignore[arg-type]


async def to_preparing(journal: Journal, run_id: str, slot: str = "agp-1") -> bool:
    """Take an attempt out of the queue."""
    return await journal.preparing(run_id, slot=slot, image="agp/x", timeout_s=60, memory_bytes=2**29)


async def put_back(journal: Journal, run_id: str, *, failed_try: bool = False) -> bool:
    """Put an attempt back into the queue, as somebody would who has just seen where it stands."""
    attempt = await journal.attempt(run_id)
    if attempt is None:
        return False
    return await journal.requeue(run_id, slot=attempt.slot or "", seen=attempt.state, failed_try=failed_try)


async def finished(journal: Journal, task_id: str, verdict: Verdict = SUCCESS, output: Output = PRINTED) -> str:
    """Accept an order and finish it at once; return its run_id."""
    accepted = await journal.accept(order(task_id), ROOM)
    await journal.finish(accepted.run_id, verdict, output)
    return accepted.run_id


async def due_now(journal: Journal, *, skip: tuple[int, ...] = ()) -> list[int]:
    """Return the numbers of all results that are due."""
    return await journal.due(limit=1000, skip=list(skip), horizon_ms=7_200_000)
