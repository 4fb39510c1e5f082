"""The durations of serving, in one place, and the clock they are measured with."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from loradrop.catalog.backoff import Backoff
from loradrop.worker.store.deadline import DEADLINE, Deadline


@dataclass(frozen=True, slots=True)
class Timings:
    """How long serving waits, and for what."""

    grace_seconds: float = 0.25
    """How long a revision stays loaded though no request is seen to use it: work that outlives its HTTP
    request is in no list until it starts."""
    place_wait_seconds: float = 30.0
    """How long a load that a request waits for waits for a place in the engine."""
    withdraw_seconds: float = 1.0
    """Between two names withdrawn for one load that waits for a place: the first may stream for long."""
    update_patience_seconds: float = 5.0
    """How long an update waits for a place to be unused before it takes that of the revision it replaces."""
    visit_seconds: float = 0.5
    """Between two visits of what can change without an event: draining, retries, loads ahead."""
    catalog_wait_seconds: float = 5.0
    """How long a request waits for the catalog to catch up with the disk: a copy, and settling."""
    shortest_pause_seconds: float = 0.1
    """Between two background loads: a few tokens of every stream."""
    idle_poll_seconds: float = 0.05
    """How often a load ahead checks whether the engine is idle: vLLM sends no event."""
    first_retry_seconds: float = 1.0
    last_retry_seconds: float = 300.0
    """Bounds of the doubling pauses between tries of a revision that failed."""
    deadline: Deadline = DEADLINE
    """For reading a path under the prefix before a manual load."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, never going back."""

    def pause_seconds(self, load_seconds: float) -> float:
        """Return how long background loads leave the engine alone after a load of `load_seconds`."""
        return max(load_seconds, self.shortest_pause_seconds)

    def retries(self) -> Backoff:
        """Return the pauses between the tries of one name."""
        return Backoff(self.first_retry_seconds, self.last_retry_seconds)


TIMINGS = Timings()
