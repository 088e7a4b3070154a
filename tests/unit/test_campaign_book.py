"""The campaign's book would tell: it is given each kind of violation, and finds it."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from campaign.book import DOUBLE, LOST, WRONG, Book
from campaign.mix import Mix, Order, quick
from campaign.strikes import STEP, Quiver
from support.strikes import STEPS

NUMBER: Final = "0" * 16
OTHER: Final = "1" * 16


def order() -> Order:
    """A task that ends well at once."""
    return Mix("seed").order(quick)


def body(of: Order, number: str = NUMBER, **more: object) -> bytes:
    """A result of it."""
    output = f"run {of.mark} {number}\ndone\n"
    return json.dumps({"task_id": of.task_id, "status": "completed", "output": output, "error": None, **more}).encode()


def accepted(book: Book) -> Order:
    """A task that the book knows to be accepted."""
    new = order()
    book.sending(new)
    book.accept(new.task_id, anew=True)
    return new


def faults(book: Book, seen: set[str]) -> list[str]:
    """What the book finds in the end, where these starts were seen of every task."""
    book.check_losses()
    book.check_starts(lambda _mark: seen)
    return [violation.fault for violation in book.violations]


def test_the_book_is_content_with_what_is_well() -> None:
    """One start, one result, delivered twice under one key: nothing is wrong."""
    book = Book()
    of = accepted(book)
    book.take(body(of), "key")
    book.take(body(of), "key")
    assert faults(book, {NUMBER}) == []
    assert (book.counts["accepted"], book.counts["reported"], book.counts["delivered again"]) == (1, 1, 1)


def test_the_book_finds_a_loss() -> None:
    """An accepted task without a result is one."""
    book = Book()
    accepted(book)
    assert faults(book, {NUMBER}) == [LOST]


@pytest.mark.parametrize("seen", [{NUMBER, OTHER}, {OTHER}])
def test_the_book_finds_a_second_start(seen: set[str]) -> None:
    """Two starts seen from outside are one too many; so is one that is not the reported one."""
    book = Book()
    of = accepted(book)
    book.take(body(of), "key")
    assert faults(book, seen) == [DOUBLE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "failed", "error": "exit code 1"},
        {"status": "completed", "error": "exit code 0"},
        {"status": "failed", "error": "lost: whatever"},
        {"output": "done\n"},
        {"output": ""},
    ],
    ids=["exit code", "status", "lost without a cause", "no start", "no output"],
)
def test_the_book_finds_a_wrong_result(wrong: dict[str, Any]) -> None:
    """How the playbook ends and what it prints is known beforehand."""
    book = Book()
    of = accepted(book)
    book.take(body(of, **wrong), "key")
    assert faults(book, {NUMBER}) == [WRONG]


@pytest.mark.parametrize(("engine_died", "found"), [(False, [WRONG]), (True, [])])
def test_the_book_allows_a_gap_only_with_the_engine(found: list[str], *, engine_died: bool) -> None:
    """The death of the agent takes no output along; that of the engine may, where it is said."""
    book = Book()
    of = accepted(book)
    if engine_died:
        book.engine_dies()
    output = f"run {of.mark} {NUMBER}\n[agp-agent: an unknown number of bytes omitted]\n"
    book.take(body(of, output=output), "key")
    assert faults(book, {NUMBER}) == found


def _other_key(book: Book, of: Order) -> None:
    book.take(body(of), "key")
    book.take(body(of), "another key")


def _other_body(book: Book, of: Order) -> None:
    book.take(body(of), "key")
    book.take(body(of, OTHER), "key")


def _never_sent(book: Book, of: Order) -> None:
    book.take(body(of), "key")
    book.take(body(Mix("another").order(quick)), "key")


@pytest.mark.parametrize("happens", [_other_key, _other_body, _never_sent])
def test_the_book_finds_a_result_too_many(happens: Callable[[Book, Order], None]) -> None:
    """A task has one result under one key, and only a task that was sent has any."""
    book = Book()
    happens(book, accepted(book))
    assert faults(book, {NUMBER}) == [WRONG]


def test_a_loss_with_the_engine_is_counted_apart() -> None:
    """Where the engine died under a task it may be reported as lost; the reason is kept."""
    book = Book()
    of = accepted(book)
    book.engine_dies()
    book.take(body(of, status="failed", output="", error="lost: the engine died"), "key")
    assert faults(book, set()) == []
    assert book.lost_reasons == {"lost: the engine died": 1}


def test_a_task_that_was_asked_for_again_may_run_again() -> None:
    """A sender that lost the answer, uses no key and comes after the result has asked for a second run."""
    book = Book()
    of = next(one for one in (Mix(str(seed)).order(quick) for seed in range(99)) if one.key is None)
    book.sending(of)
    assert not book.unknown(of.task_id)
    book.take(body(of), "key")
    book.accept(of.task_id, anew=True)
    book.take(body(of, OTHER), "another key")
    assert faults(book, {NUMBER, OTHER}) == []


def test_the_seed_repeats_the_tasks() -> None:
    """The same seed makes the same tasks, another one others."""

    def made(seed: str) -> list[tuple[str, str, str]]:
        mix = Mix(seed)
        return [(one.task_id, one.kind, one.content) for one, _ in zip(mix, range(50), strict=False)]

    assert made("one") == made("one") != made("two")


def test_the_seed_repeats_the_strikes() -> None:
    """The same seed strikes in the same way; each step of the walk has its turn."""

    def struck(seed: str) -> list[str]:
        quiver = Quiver(seed)
        return [quiver.choose(random.Random(f"{seed}{number}")).name for number in range(4 * len(STEPS))]  # noqa: S311

    assert struck("one") == struck("one") != struck("two")
    assert {name for name in struck("one") if name.startswith(STEP)} == {STEP + step.name for step in STEPS}
