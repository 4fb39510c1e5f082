"""How many threads examine at once. Adaptive limit: up on I/O wait, down on GIL contention.

Python runs one thread at a time; reading and digesting large files does not count, since both let the
others run. So a cold disk, a network or large adapters want several threads, and thousands of small
adapters in warm memory want one: there, a second makes everything slower, the event loop included.

Pure: what a batch took is passed in.
"""

_CROWDED = 0.8
_WAITING = 0.5
_DIGESTED_PER_SECOND = 2e9
"""Bytes a thread digests in a second without keeping others from running."""


class ConcurrencyLimit:
    """How many batches may run at once, from 1 to `most`."""

    def __init__(self, most: int) -> None:
        """Begin with one."""
        self.current = 1
        self._most = max(1, most)

    def record(self, *, wall_seconds: float, cpu_seconds: float, hashed_bytes: int, running: int) -> None:
        """Adapt to a batch that took this long while `running` batches ran, itself included."""
        if wall_seconds <= 0:
            return
        kept_seconds = cpu_seconds - hashed_bytes / _DIGESTED_PER_SECOND
        crowding = kept_seconds / wall_seconds * running
        if crowding < _WAITING:
            self.current = min(self._most, self.current + 1)
        elif crowding > _CROWDED:
            self.current = max(1, self.current - 1)
