"""The tasks of the campaign: an endless mix of playbooks by a seed; each order says how its task must end."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from agp_agent import __version__
from support.starts_seen import number_in, numbered, numbered_in_silence

OUTPUT_LIMIT_BYTES: Final = 64 * 1024
SHORT_S: Final = 2
"""Deadline of the runner ``short``."""
CATALOG: Final = f"""\
runners:
  short:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.short]}}
    command: [agp-shell, "{{playbook}}"]
    timeout_s: {SHORT_S}
"""
GAP: Final = re.compile(r"\[agp-agent: (?:at least \d+|an unknown number of) bytes omitted\]\n")
"""States that something is missing which nobody counted."""


@dataclass(frozen=True, slots=True)
class Order:
    """A task, and what must become of it. ``mark`` stands in the first line that its playbook prints."""

    task_id: str
    mark: str
    kind: str
    name: str
    content: str
    errors: tuple[str | None, ...] = (None,)
    """How it may end."""
    prints: Callable[[], str] | None = None
    """What follows that line if it ends as ``errors`` begins; None: whatever."""
    silent: bool = False
    """It prints nothing at all, not even that line."""
    cancel_after_s: float | None = None
    key: str | None = None
    """Its ``Idempotency-Key``, where the sender uses one."""

    def problem(self, result: dict[str, Any]) -> str | None:
        """What is wrong with a result, as a sentence; None where nothing is."""
        error, output = result["error"], result["output"]
        if (result["status"], error is None) not in {("completed", True), ("failed", False)}:
            return f"status {result['status']!r} with error {error!r}"
        if error not in self.errors:
            return f"a {self.kind} task ended with {error!r}, expected {self.errors}"
        if self.silent:
            printed = GAP.sub("", output)  # whether a gap may be stated is the book's question
            return f"a silent task printed {printed[:80]!r}" if printed else None
        if error != self.errors[0] or self.prints is None:
            return None
        number = number_in(output[:200], self.mark)
        if number is None and GAP.search(output) is None:
            return "the first line of its output is missing"
        return self._difference(output, f"run {self.mark} {number}\n{self.prints()}")

    def _difference(self, output: str, whole: str) -> str | None:
        """What is printed must be there to the last byte, or what is missing must be stated."""
        expected = _cut(whole)
        if output == expected or (GAP.search(output) and _fits(output, whole)):
            return None
        at = next((n for n, (one, two) in enumerate(zip(output, expected, strict=False)) if one != two), len(expected))
        return f"its output differs from byte {at} on: {output[at : at + 80]!r}, expected {expected[at : at + 80]!r}"


def _cut(whole: str) -> str:
    """As the contract has it: half head, half tail, and between them how much is missing. All is ASCII here."""
    if len(whole) <= OUTPUT_LIMIT_BYTES:
        return whole
    half = OUTPUT_LIMIT_BYTES // 2
    line_end = "" if whole[half - 1] == "\n" else "\n"
    return f"{whole[:half]}{line_end}[agp-agent: {len(whole) - 2 * half} bytes omitted]\n{whole[-half:]}"


def _fits(output: str, whole: str) -> bool:
    """Whether what stands around a stated gap was really printed."""
    head, tail = GAP.split(output, maxsplit=1)
    return whole.startswith(head.removesuffix("\n")) and tail in whole


class Mix:
    """Makes orders for ever; the seed decides which."""

    def __init__(self, seed: str) -> None:
        """``seed`` as the campaign has it."""
        self._random = random.Random(seed)  # noqa: S311  a seed repeats it
        self._made = 0

    def __iter__(self) -> Iterator[Order]:
        return self

    def __next__(self) -> Order:
        draw = self._random
        make = draw.choices([make for make, _ in _KINDS], [weight for _, weight in _KINDS])[0]
        return self.order(make)

    def order(self, make: "Maker") -> Order:
        """An order of this kind."""
        draw = self._random
        self._made += 1
        mark = f"{draw.getrandbits(32):08x}"
        awkward = draw.random() < _AWKWARD
        task_id = f"../{self._made} {mark} \N{SNOWMAN} -rf" if awkward else f"task-{self._made}-{mark}"
        key = f"key-{self._made}-{mark}" if draw.random() < _KEYED else None
        return make(draw, {"task_id": task_id, "mark": mark, "key": key})


Maker = Callable[[random.Random, dict[str, Any]], Order]
_AWKWARD: Final = 0.05
_KEYED: Final = 0.5


def _shell(base: dict[str, Any], kind: str, script: str, prints: str, **more: Any) -> Order:
    content = numbered(base["mark"], script)
    return Order(**base, kind=kind, name="playbook.sh", content=content, prints=lambda: prints, **more)


def quick(_draw: random.Random, base: dict[str, Any]) -> Order:
    """Over at once."""
    return _shell(base, "quick", "echo done\n", "done\n")


def slow(draw: random.Random, base: dict[str, Any]) -> Order:
    """Takes some seconds."""
    script = f"echo one\nsleep {draw.uniform(1, 5):.2f}\necho two\n"
    return _shell(base, "slow", script, "one\ntwo\n")


def _failing(draw: random.Random, base: dict[str, Any]) -> Order:
    code = draw.choice([1, 2, 7, 42, 100, 125, 126, 127, 255])
    pause = draw.choice([0, 0, 0.5, 1.5])
    return _shell(base, "failing", f"echo bad\nsleep {pause}\nexit {code}\n", "bad\n", errors=(f"exit code {code}",))


def _chatty(draw: random.Random, base: dict[str, Any]) -> Order:
    """Many lines in two parts with a pause between: below the cap, or above it."""
    first, last, pause = draw.choice([200, 700, 4000]), draw.choice([600, 4000]), draw.choice([0, 0.3, 1])
    pattern = f"line %07.0f of {base['mark']}"
    script = f"seq -f '{pattern}' 1 {first}\nsleep {pause}\nseq -f '{pattern}' {first + 1} {first + last}\n"

    def prints() -> str:
        return "".join(f"line {n:07} of {base['mark']}\n" for n in range(1, first + last + 1))

    content = numbered(base["mark"], script)
    return Order(**base, kind="chatty", name="playbook.sh", content=content, prints=prints)


def _python(draw: random.Random, base: dict[str, Any]) -> Order:
    code = draw.choice([0, 0, 3])
    content = (
        "import secrets, sys, time\n"
        f"print('run {base['mark']} ' + secrets.token_hex(8), flush=True)\n"
        f"time.sleep({draw.uniform(0, 1):.2f})\n"
        f"print(sum(range(1000)))\nsys.exit({code})\n"
    )
    errors = (f"exit code {code}" if code else None,)
    return Order(**base, kind="python", name="sum.py", content=content, errors=errors, prints=lambda: "499500\n")


def _ansible(_draw: random.Random, base: dict[str, Any]) -> Order:
    """Its start is told by a module, which writes to the playbook's own output."""
    content = (
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.shell: |\n"
        f"        printf 'run {base['mark']} %s\\n' $(od -An -N8 -tx8 /dev/urandom) >/proc/1/fd/1\n"
        "    - ansible.builtin.debug: {msg: hello}\n"
    )
    return Order(**base, kind="ansible", name="site.yml", content=content)


def _silent(draw: random.Random, base: dict[str, Any]) -> Order:
    """Prints nothing: whether it has started cannot be told from its output."""
    code = draw.choice([0, 0, 4])
    content = numbered_in_silence(base["mark"], f"sleep {draw.uniform(0, 3):.2f}\nexit {code}\n")
    errors = (f"exit code {code}" if code else None,)
    return Order(**base, kind="silent", name="playbook.sh", content=content, errors=errors, silent=True)


def deaf(_draw: random.Random, base: dict[str, Any]) -> Order:
    """Ignores TERM, until its deadline and the grace are over."""
    content = numbered(base["mark"], "trap '' TERM\necho deaf\nwhile :; do sleep 0.2; done\n")
    error = f"timed out after {SHORT_S} s"
    return Order(**base, kind="deaf", name="deaf.short", content=content, errors=(error,), prints=lambda: "deaf\n")


def _cancelled(draw: random.Random, base: dict[str, Any]) -> Order:
    """Somebody cancels it on its way."""
    script = "echo waiting\nsleep 20\necho done\n"
    content = numbered(base["mark"], script)
    return Order(
        **base,
        kind="cancelled",
        name="playbook.sh",
        content=content,
        errors=("cancelled",),
        cancel_after_s=draw.uniform(0, 3),
    )


_KINDS: Final[tuple[tuple[Maker, int], ...]] = (
    (quick, 30),
    (slow, 18),
    (_failing, 12),
    (_chatty, 12),
    (_python, 8),
    (_silent, 7),
    (deaf, 5),
    (_cancelled, 6),
    (_ansible, 2),
)
