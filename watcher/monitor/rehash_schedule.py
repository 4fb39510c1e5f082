"""When every byte is read anew: for disks that change data without changing times. Off unless asked for."""

import time
from collections.abc import Iterable


class Verification:
    """The names whose bytes are to be read anew, every `interval_seconds`; never where that is 0."""

    def __init__(self, interval_seconds: float) -> None:
        """Begin one interval from now."""
        self._interval_seconds = interval_seconds
        self._due = time.monotonic() + interval_seconds
        self._wanted: set[str] = set()

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the next begins, or None."""
        return self._due if self._interval_seconds else None

    def begin(self, names: Iterable[str]) -> None:
        """Want `names` to be read anew."""
        self._due = time.monotonic() + self._interval_seconds
        self._wanted.update(names)

    def wants(self, name: str) -> bool:
        """Return whether `name` is to be read anew."""
        return name in self._wanted

    def done(self, name: str) -> None:
        """Take note that `name` was looked at."""
        self._wanted.discard(name)
