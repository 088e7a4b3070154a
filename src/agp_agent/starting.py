"""What is to be written down before a container is released, and what the attempt is by then."""

import secrets
from dataclasses import dataclass, replace

from agp_agent import clock
from agp_agent.catalog import Runner
from agp_agent.executor import Prepared
from agp_agent.journal import Attempt, Release, Reservation, Start


@dataclass(frozen=True, slots=True)
class Claim:
    """A place and a warm container, held for an order that is being taken on."""

    runner: Runner
    prepared: Prepared
    reservation: Reservation


def release_of(prepared: Prepared) -> Release:
    """What is to be written down before this container is released now."""
    return Release(
        container_id=prepared.container_id,
        image_digest=prepared.image.digest,
        nonce=secrets.token_hex(16),
        boot_id=clock.boot_id(),
        released_boot_s=clock.boot_s(),
        started_at_ms=clock.wall_ms(),
    )


def start_of(prepared: Prepared) -> Start:
    """The same for one that had waited: nothing of it stands in the journal yet."""
    container = prepared.spec.container
    return Start(
        slot=prepared.container.name,
        image=container.image,
        timeout_s=prepared.spec.timeout_s,
        memory_bytes=container.memory_bytes,
        release=release_of(prepared),
    )


def released(attempt: Attempt, release: Release) -> Attempt:
    """The attempt as it stands in the journal then."""
    return replace(attempt, **{name: getattr(release, name) for name in Release.__slots__})


def started(attempt: Attempt, start: Start) -> Attempt:
    """The same where it came out of the queue at once."""
    return released(replace(attempt, slot=start.slot, image=start.image), start.release)
