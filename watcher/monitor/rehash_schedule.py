"""When every byte is read again: for disks that change data without changing times. Off unless asked for."""

from collections.abc import Iterable


class RehashSchedule:
    """The names to rehash, every `interval_seconds`; never where that is 0. Clocks are passed in."""

    def __init__(self, interval_seconds: float, *, now: float) -> None:
        """Begin one interval after `now` (monotonic seconds)."""
        self._interval_seconds = interval_seconds
        self._due = now + interval_seconds
        self._wanted: set[str] = set()

    def next_due(self) -> float | None:
        """Return when the next begins, or None."""
        return self._due if self._interval_seconds else None

    def is_due(self, now: float) -> bool:
        """Return whether the next may begin."""
        return self._interval_seconds > 0 and self._due <= now

    def begin(self, names: Iterable[str], *, now: float) -> None:
        """Want `names` to be rehashed."""
        self._due = now + self._interval_seconds
        self._wanted.update(names)

    def wants(self, name: str) -> bool:
        """Return whether `name` is to be rehashed."""
        return name in self._wanted

    def done(self, name: str) -> None:
        """Note that `name` was examined."""
        self._wanted.discard(name)
