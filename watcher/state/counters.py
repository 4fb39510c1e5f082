"""What the watcher counts about itself: plain numbers, cheap to keep and readable from any thread.

Pure. Not here: how they are shown (`metrics`).
"""

from bisect import bisect_left
from dataclasses import dataclass, field

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a rename that is published at once to a copy that takes a minute."""


class Histogram:
    """How often something took how long, in seconds."""

    def __init__(self, bounds: tuple[float, ...] = _FAST) -> None:
        """Sort into buckets up to each of `bounds`, and one above."""
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, how many took no longer), as Prometheus counts."""
        total, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


@dataclass(slots=True)
class Counters:
    """Everything counted since the start."""

    notifications: int = 0
    """Hints heard."""
    coalesced: int = 0
    """Hints that asked for nothing new: the examination they want was due already."""
    examined: int = 0
    """Examinations of one adapter."""
    digested_bytes: int = 0
    """Bytes of the adapters that were read in full."""
    examined_seconds: float = 0.0
    """How long threads examined, together."""
    scan_changed: int = 0
    """Adapters that scans found to look different."""
    scan_failures: int = 0
    scan_seconds: Histogram = field(default_factory=Histogram)
    publish_seconds: Histogram = field(default_factory=Histogram)
    """From the first hint of an adapter to its published revision, settling included."""
    degraded_seconds: float = 0.0
    """How long the watcher has been degraded, up to the last heartbeat."""
