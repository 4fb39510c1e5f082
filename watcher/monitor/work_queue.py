"""Which names to examine, in which order, and when: a priority queue without duplicates.

As controller-runtime's: `add` for what is hinted, `add_low_priority` for what a scan or a refresh found, and
`add_after` for what is due at a time. Hints come in any number; a storm of them costs one examination a name.
A name added while it is in flight is handed out again once it is `done`.
"""

import heapq
from collections.abc import Iterable

_MAX_HINTED = 10_000


class WorkQueue:
    """Names that are ready, in flight or due. Invariant: a name in flight is not handed out until `done`."""

    def __init__(self) -> None:
        """Begin empty."""
        self._high: dict[str, None] = {}
        self._low: dict[str, None] = {}
        self._in_flight: set[str] = set()
        self._due: dict[str, float] = {}
        self._timers: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Return how many names are ready."""
        return len(self._high) + len(self._low)

    def add(self, name: str) -> bool:
        """Add `name` before all of low priority; False where there are so many that a scan is cheaper."""
        if len(self._high) >= _MAX_HINTED and name not in self._high:
            return False
        self._high[name] = None
        self._low.pop(name, None)
        return True

    def add_low_priority(self, names: Iterable[str]) -> None:
        """Add `names` after everything else."""
        for name in names:
            if name not in self._high:
                self._low[name] = None

    def add_after(self, name: str, at: float | None) -> None:
        """Add `name` at `at` (monotonic seconds) instead of at any time set before; None: at no time."""
        if at is None:
            self._due.pop(name, None)
        elif self._due.get(name) != at:
            self._due[name] = at
            heapq.heappush(self._timers, (at, name))

    def advance(self, now: float) -> None:
        """Make ready what is due at `now`."""
        while self._timers and self._timers[0][0] <= now:
            at, name = heapq.heappop(self._timers)
            if self._due.get(name) == at:
                del self._due[name]
                self.add_low_priority([name])

    def next_due(self) -> float | None:
        """Return when the next name is due."""
        while self._timers and self._due.get(self._timers[0][1]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def get(self, limit: int, *, only_high: bool = False) -> list[str]:
        """Hand out up to `limit` names that are ready, those of high priority first."""
        taken = self._take(self._high, limit)
        if not only_high:
            taken += self._take(self._low, limit - len(taken))
        if not self._low:
            self._low = {}  # a dict that held thousands keeps their room
        return taken

    def done(self, name: str) -> None:
        """Take back a name that was handed out."""
        self._in_flight.discard(name)

    def is_hinted(self, name: str) -> bool:
        """Return whether `name` is ready with high priority."""
        return name in self._high

    def is_active(self, name: str) -> bool:
        """Return whether `name` is ready or in flight."""
        return name in self._in_flight or name in self._high or name in self._low

    def is_only_due(self, name: str) -> bool:
        """Return whether `name` is neither ready nor in flight, and will be ready at a time that is set."""
        return name in self._due and not self.is_active(name)

    def all(self) -> set[str]:
        """Return every name that is ready, in flight or due."""
        return {*self._high, *self._low, *self._in_flight, *self._due}

    def _take(self, ready: dict[str, None], limit: int) -> list[str]:
        taken: list[str] = []
        for name in ready:
            if len(taken) >= limit:
                break
            if name not in self._in_flight:
                taken.append(name)
        for name in taken:
            del ready[name]
            self._in_flight.add(name)
        return taken
