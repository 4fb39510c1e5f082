"""When the whole prefix is scanned: at the start, on request, by timer, and soon again after a failure."""

import random
import time
from dataclasses import dataclass

from loradrop.catalog.adapter import Reason

_RETRY_SECONDS = 1.0
_JITTER = (0.75, 1.25)
"""Watchers of one shared disk should not look at it in step."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why scan `number` could not tell anything."""

    number: int
    reason: Reason


class Scans:
    """The order of scans. Each has a number: who waits for one knows which began after the request."""

    def __init__(self, interval_seconds: float) -> None:
        """Be due at once, then every `interval_seconds`, or never again by itself where that is 0."""
        self.done = 0
        self.failure: Failure | None = None
        self.is_running = False
        self._interval_seconds = interval_seconds
        self._started = 0
        self._due: float | None = time.monotonic()

    def want(self) -> int:
        """Scan as soon as possible; return the number of the first scan that begins after now."""
        self._due = time.monotonic()
        return self._started + 1

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the next may begin; None while one runs or none is due."""
        return None if self.is_running else self._due

    def begin(self) -> int:
        """Note that a scan begins, and return its number."""
        self.is_running, self._due = True, None
        self._started += 1
        return self._started

    def succeed(self, number: int) -> None:
        """Note that scan `number` told the whole truth."""
        self.is_running = False
        self.done = number
        self.failure = None
        if self._due is None and self._interval_seconds > 0:
            self._due = time.monotonic() + self._interval_seconds * random.uniform(*_JITTER)

    def fail(self, number: int, reason: Reason) -> None:
        """Note that scan `number` could not be made, or (0) that an adapter could not be looked at."""
        if number:
            self.is_running = False
        self.failure = Failure(number, reason)
        if self._due is None:
            self._due = time.monotonic() + _RETRY_SECONDS
