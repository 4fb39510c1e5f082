"""Which quantities grew with the number of events.

Measurements are noisy, upwards: Python's allocator takes memory by the MiB (3 % of a watcher) and gives
it back when the last object in it is gone. So samples are taken at rest, those of the warm-up are left out,
and what is compared is the least of the first fifth of the others with the least of their last fifth: what
is there at every moment. A leak that grows with every event moves the latter by four fifths of all it leaks.

Pure. Not here: how samples are taken (`samples`), and printing (`table`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.samples import Quantity, Sample

TOLERATED_SHARE = 0.02
"""What anything may have grown by at the end."""

LEAST_SAMPLES = 10
"""Fewer make windows of a single sample."""

_WINDOWS = 5


@dataclass(frozen=True, slots=True)
class Growth:
    """One quantity after the warm-up and at the end, and how many events happened in between."""

    quantity: Quantity
    first: float
    last: float
    events: float

    @property
    def share(self) -> float:
        """By how much it grew, as a share of what it was."""
        if self.first == 0:
            return 0.0 if self.last == 0 else float("inf")
        return (self.last - self.first) / self.first

    @property
    def per_thousand_events(self) -> float:
        """By how much it grew with every 1,000 events."""
        return (self.last - self.first) / self.events * 1_000

    @property
    def is_tolerated(self) -> bool:
        """Whether it grew by no more than `TOLERATED_SHARE`."""
        return self.share <= TOLERATED_SHARE


def growths(samples: Sequence[Sample], *, events: int) -> list[Growth]:
    """Return how each quantity grew over `samples`, taken evenly while `events` happened.

    Raises ValueError where there are too few to tell.
    """
    if len(samples) < LEAST_SAMPLES:
        raise ValueError(f"{len(samples)} samples are too few, {LEAST_SAMPLES} are needed")
    width = len(samples) // _WINDOWS
    between = events * (len(samples) - width) / len(samples)
    return [
        Growth(
            quantity,
            min(sample[quantity] for sample in samples[:width]),
            min(sample[quantity] for sample in samples[-width:]),
            between,
        )
        for quantity in samples[0]
        if all(quantity in sample for sample in samples)
    ]
