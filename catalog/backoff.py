"""How long to wait between tries of the same work: doubling pauses with an upper bound and jitter."""

import random
from dataclasses import dataclass, field

_NO_JITTER = (1.0, 1.0)
HALF_JITTER = (0.5, 1.0)
"""Processes that lost the same server should not return to it in step."""


@dataclass(slots=True)
class Backoff:
    """Pauses of `first_seconds`, doubling up to `last_seconds`.

    Each is multiplied with a random factor from `jitter`. A try that lasted `healthy_seconds` counts as a
    success: the pauses begin again at the first.
    """

    first_seconds: float
    last_seconds: float
    healthy_seconds: float = float("inf")
    jitter: tuple[float, float] = _NO_JITTER
    _next_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again at the first pause: a try has succeeded."""
        self._next_seconds = self.first_seconds

    def pause_seconds(self, *, lasted_seconds: float = 0.0) -> float:
        """Return how long to wait after a try that failed and had lasted `lasted_seconds`."""
        if lasted_seconds >= self.healthy_seconds:
            self.reset()
        pause = self._next_seconds
        self._next_seconds = min(pause * 2, self.last_seconds)
        return pause * random.uniform(*self.jitter)
