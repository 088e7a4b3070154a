"""Samples and what is said of them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, interpolated between neighbours.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values: a measurement brought nothing")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return quantile(values, 0.5)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, every sample of it, and what it is held against."""

    section: str
    what: str
    unit: str
    samples: tuple[float, ...]
    ratio: str = ""
    """Against which other row, and how it stands to it; for people."""
    goal: str = ""
    """What the project wants to reach, and whether these figures do."""
    digits: int = 0
    of: str = ""
    """What was measured, where it was measured at several loads."""
    at: float | None = None
    """The load: how many there were."""

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate; everything else costs something."""
        return self.unit.endswith("/s")

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return median(self.samples)

    @property
    def p10(self) -> float:
        """A tenth of the samples is below."""
        return quantile(self.samples, 0.1)

    @property
    def p90(self) -> float:
        """A tenth of the samples is above."""
        return quantile(self.samples, 0.9)


def paired_ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """How ``values`` stand to ``others`` that were measured in the same rounds: ratio of the medians, and its spread.

    The spread is that of the ratios round by round, so that noise that hits a whole round cancels out.
    """
    ratios = [value / other for value, other in zip(values, others, strict=True)]
    low, high = quantile(ratios, 0.1), quantile(ratios, 0.9)
    return f"{median(values) / median(others):.2f} ({low:.2f} to {high:.2f})"


def verdict(goal: str, *, met: bool) -> str:
    """A goal with what came of it."""
    return f"{goal}: {'met' if met else 'missed'}"
