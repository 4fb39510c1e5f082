"""Which names to look at, in which order, and when: one look at a time for each name, hints first.

Hints come in any number; what is kept is a set of names, so a storm of them costs one look each. A name
that is being looked at keeps its newer hints for afterwards.
"""

import heapq
from collections.abc import Iterable

_MAX_HINTED = 10_000


class Agenda:
    """The names waiting to be examined. Keeps true: a name handed out is not handed out again until done."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._hinted: dict[str, bool] = {}
        self._found: dict[str, None] = {}
        self._busy: set[str] = set()
        self._due: dict[str, float] = {}
        self._timers: list[tuple[float, str]] = []

    def hint(self, name: str, *, arrived: bool = False) -> bool:
        """Note that `name` may have changed; False where there are so many that everything must be scanned.

        `arrived` is forgotten where another hint follows before the look: something writes to it again.
        """
        if len(self._hinted) >= _MAX_HINTED and name not in self._hinted:
            return False
        self._hinted[name] = arrived
        return True

    def find(self, names: Iterable[str]) -> None:
        """Note what a scan or a refresh wants to be looked at, after everything hinted."""
        for name in names:
            if name not in self._hinted:
                self._found[name] = None

    def schedule(self, name: str, at: float | None) -> None:
        """Look at `name` again at `at` (monotonic seconds) instead of any time set before; None: at none."""
        if at is None:
            self._due.pop(name, None)
        elif self._due.get(name) != at:
            self._due[name] = at
            heapq.heappush(self._timers, (at, name))

    def wake(self, now: float) -> None:
        """Note the names whose time has come."""
        while self._timers and self._timers[0][0] <= now:
            at, name = heapq.heappop(self._timers)
            if self._due.get(name) == at:
                del self._due[name]
                self.find([name])

    def next_due(self) -> float | None:
        """Return when `wake` has something to do next."""
        while self._timers and self._due.get(self._timers[0][1]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def take(self, limit: int, *, only_hinted: bool = False) -> list[tuple[str, bool]]:
        """Hand out up to `limit` names with whether they arrived by a rename, hinted ones first."""
        taken: list[tuple[str, bool]] = []
        for name in self._hinted:
            if len(taken) == limit:
                break
            if name not in self._busy:
                taken.append((name, self._hinted[name]))
        if not only_hinted:
            for name in self._found:
                if len(taken) == limit:
                    break
                if name not in self._busy and name not in self._hinted:
                    taken.append((name, False))
        for name, _ in taken:
            self._hinted.pop(name, None)
            self._found.pop(name, None)
            self._busy.add(name)
        if not self._found:
            self._found = {}  # a dict that held thousands keeps their room
        return taken

    def done(self, name: str) -> None:
        """Take back a name that was handed out."""
        self._busy.discard(name)

    def is_hinted(self, name: str) -> bool:
        """Return whether a look at `name` is due already because of a hint."""
        return name in self._hinted

    def is_waiting(self, name: str) -> bool:
        """Return whether `name` is to be looked at now, or being looked at."""
        return name in self._busy or name in self._hinted or name in self._found

    def is_only_scheduled(self, name: str) -> bool:
        """Return whether the next look at `name` is still to come, at a time that is set."""
        return name in self._due and not self.is_waiting(name)

    def waiting(self) -> set[str]:
        """Return all names that are to be looked at now, or being looked at."""
        return {*self._hinted, *self._found, *self._busy}

    def count(self) -> int:
        """Return how many names wait to be looked at."""
        return len(self._hinted) + len(self._found)
