"""What a task prints, for those who look on: from any byte on, live while it runs, and from the journal afterwards.

Nobody who looks on holds the task up: each reads the spool's file for itself, and whoever is too slow meets gaps.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final, Self

from agp_agent.capture import Gap, Spool
from agp_agent.errors import AgentError
from agp_agent.journal import Journal, Kept
from agp_agent.lifecycle import State
from agp_agent.output import Output
from agp_agent.watch import LiveRun

_LOOK_S: Final = 2.0
"""Who waits for a start is woken by it; this is for a task that ends without one."""
_RECORD_S: Final = 0.1
"""The end of the output is on record soon."""
_PIECE_BYTES: Final = 64 * 1024


class BeyondOutput(AgentError):
    """A reader wants to go on where the output has never been, or in an attempt that is not kept."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader goes on: behind so many bytes as printed, of an attempt; None: of the latest.

    Written as the number of bytes, and the attempt behind an ``@`` where it is not the first: one task has outputs as
    often as it is sent again, and whoever follows one does not come into the next.
    """

    start: int = 0
    attempt: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """What ``str`` writes; "0" is the beginning of the latest attempt. Raises ``ValueError``."""
        start, _, attempt = text.partition("@")
        return cls(int(start), int(attempt) if attempt else 1 if int(start) else None)

    def __str__(self) -> str:
        return f"{self.start}@{self.attempt}" if (self.attempt or 1) > 1 else str(self.start)


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of the output; ``end`` is the position behind it, in bytes as printed, from which a reader goes on."""

    text: str
    end: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Bytes that are not kept; ``end`` is the position behind them. None: nobody counted them."""

    omitted_bytes: int | None
    end: int


class Following:
    """The outputs of all tasks. It is the observer of the walks."""

    def __init__(self, journal: Journal) -> None:
        """Nothing runs yet."""
        self._journal = journal
        self._spools: dict[str, Spool] = {}
        self._news = asyncio.Event()
        self._closing = asyncio.Event()

    def observe(self, run_id: str, run: LiveRun) -> None:
        """A run has begun, or was taken over. Those that have ended are forgotten."""
        self._spools = {known: spool for known, spool in self._spools.items() if not spool.closed}
        self._spools[run_id] = run.spool
        self._wake()

    @property
    def closed(self) -> bool:
        """Whether the agent stops: then what was followed is not at its end."""
        return self._closing.is_set()

    def close(self) -> None:
        """The agent stops: whoever follows is let go, and may come back to the next one."""
        self._closing.set()
        self._wake()

    async def text(self, task_id: str) -> str | None:
        """What is kept now of the latest attempt's output; None where no such task is known."""
        kept = await self._journal.views.kept(task_id)
        if kept is None:
            return None
        spool = self._spool_of(kept)
        return (spool.output() if spool is not None else kept.output).text()

    async def find(self, task_id: str, position: Position) -> Position | None:
        """The position with its attempt; None where no such task is known.

        Raises:
            BeyondOutput: the attempt's output is shorter, or it is not kept (any more).
        """
        kept = await self._journal.views.kept(task_id, position.attempt)
        if kept is None:
            if position.attempt is None or await self._journal.views.kept(task_id) is None:
                return None
            raise BeyondOutput(f"Last-Event-ID is {position}, and attempt {position.attempt} is not kept (any more).")
        spool = self._spool_of(kept)
        if spool is not None or kept.state is State.FINISHED:
            total = spool.total_bytes if spool is not None else kept.output.total_bytes
            if position.start > total:
                raise BeyondOutput(f"Last-Event-ID is {position}, and this attempt has printed {total} bytes.")
        return Position(position.start, kept.attempt)  # without either it waits, or was not taken over yet

    async def pieces(self, task_id: str, begin: Position) -> AsyncIterator[Piece | Missing]:
        """An attempt's output from a position on, until its end is on record, or the agent stops."""
        position = begin.start
        while not self._closing.is_set():
            news = self._news
            kept = await self._journal.views.kept(task_id, begin.attempt)
            if kept is None:  # forgotten meanwhile: its result is old
                return
            spool = self._spool_of(kept)
            patience_s = _LOOK_S if spool is None else _RECORD_S
            if spool is not None and not spool.closed:
                async for piece in _decoded(_live(spool, position, self._closing), position):
                    if self._closing.is_set():  # what was cut off here may end within a character
                        return
                    position = piece.end
                    yield piece
            elif kept.state is State.FINISHED:
                async for piece in _decoded(_stored(kept.output, position), position):
                    yield piece
                return
            await _within(news, patience_s)

    def _spool_of(self, kept: Kept) -> Spool | None:
        return None if kept.state is State.FINISHED else self._spools.get(kept.run_id)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _within(event: asyncio.Event, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await event.wait()
    except TimeoutError:
        return


async def _live(spool: Spool, start: int, closing: asyncio.Event) -> AsyncIterator[bytes | Gap]:
    """The spool's own followers end with its run; these also end with the agent."""
    pieces = spool.follow(start)
    over = asyncio.create_task(closing.wait())
    step: asyncio.Future[bytes | Gap] | None = None
    try:
        while True:
            step = asyncio.ensure_future(anext(pieces))
            await asyncio.wait({step, over}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return
            yield step.result()
    except StopAsyncIteration:
        return
    finally:
        over.cancel()
        if step is not None:  # who leaves while nothing is printed leaves nothing behind
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
        await pieces.aclose()


async def _stored(output: Output, start: int) -> AsyncIterator[bytes | Missing]:
    for piece in _pieces_of(output, start):
        yield piece


def _pieces_of(output: Output, start: int) -> Iterator[bytes | Missing]:
    """What is kept from a position on: a part of the head, the gap, the tail."""
    tail_start = max(len(output.head), output.total_bytes - len(output.tail))
    for position in range(start, len(output.head), _PIECE_BYTES):
        yield output.head[position : position + _PIECE_BYTES]
    position = max(start, len(output.head))
    if position < tail_start or (output.at_least and start <= len(output.head)):
        yield Missing(None if output.at_least else tail_start - position, tail_start)
        position = tail_start
    for place in range(position - tail_start, len(output.tail), _PIECE_BYTES):
        yield output.tail[place : place + _PIECE_BYTES]


async def _decoded(pieces: AsyncIterator[bytes | Gap | Missing], start: int) -> AsyncIterator[Piece | Missing]:
    """As text. A character that is not complete waits for its rest, and the position stays before it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    position = start
    async for piece in pieces:
        if not isinstance(piece, bytes):
            if text := decoder.decode(b"", final=True):
                yield Piece(text, position)
            decoder.reset()
            missing = piece if isinstance(piece, Missing) else _behind(position, piece)
            position = missing.end
            yield missing
            continue
        text = decoder.decode(piece)
        position += len(piece)
        if text:
            yield Piece(text, position - len(decoder.getstate()[0]))
    if text := decoder.decode(b"", final=True):
        yield Piece(text, position)


def _behind(position: int, gap: Gap) -> Missing:
    return Missing(gap.omitted_bytes or None, position + gap.omitted_bytes)
