"""When the whole prefix is scanned: at the start, on request, by timer, and soon again after a failure.

Every scan has a number, so that a refresh can wait for the first one that began after it was asked for:

    want() -> 1    begin() -> 1    want() -> 2    succeed(1)    begin() -> 2    succeed(2)
                                   (1 began before: it may have passed over what was dropped since)
"""

import random
from dataclasses import dataclass

from loradrop.catalog.adapter import Reason
from loradrop.catalog.backoff import Backoff

_JITTER = (0.75, 1.25)
"""Watchers of one shared disk should not scan it in step."""


@dataclass(frozen=True, slots=True)
class ScanFailure:
    """Why the scan of this number could tell nothing."""

    number: int
    reason: Reason


class ScanSchedule:
    """The order of scans. Clocks are passed in, in monotonic seconds. Invariant: one scan runs at a time."""

    def __init__(self, interval_seconds: float, *, now: float, retry_seconds: float = 1.0) -> None:
        """Be due at `now`, then every `interval_seconds`, or never again by itself where that is 0."""
        self.done = 0
        self.failure: ScanFailure | None = None
        self._interval_seconds = interval_seconds
        # Constant: what was unmounted is to be served again within a second of its return.
        self._retry = Backoff(retry_seconds, retry_seconds)
        self._is_running = False
        self._started = 0
        self._due: float | None = now

    def want(self, *, now: float) -> int:
        """Scan as soon as possible; return the number of the first scan that begins after now."""
        self._due = now
        return self._started + 1

    def next_due(self) -> float | None:
        """Return when the next may begin; None while one runs or none is due."""
        return None if self._is_running else self._due

    def begin(self) -> int:
        """Note that a scan begins, and return its number."""
        self._is_running, self._due = True, None
        self._started += 1
        return self._started

    def succeed(self, number: int, *, now: float) -> None:
        """Note that scan `number` told the whole truth."""
        self._is_running = False
        self.done = number
        self.failure = None
        if self._due is None and self._interval_seconds > 0:
            self._due = now + self._interval_seconds * random.uniform(*_JITTER)

    def fail(self, number: int, reason: Reason, *, now: float) -> None:
        """Note that scan `number` could not be made, or (0) that the prefix could not be opened otherwise."""
        if number:
            self._is_running = False
        self.failure = ScanFailure(number, reason)
        if self._due is None:
            self._due = now + self._retry.pause_seconds()
