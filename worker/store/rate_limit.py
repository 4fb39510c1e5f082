"""Limits how fast the copies of this process together read the prefix, whose storage has other clients."""

import threading
import time

from loradrop.worker.metrics import COPIED_BYTES
from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Permit


class RateLimit:
    """Invariant: over time, no more is read than `bytes_per_second`; 0: no limit."""

    def __init__(self, bytes_per_second: float) -> None:
        """Allow this rate from now on."""
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0
        self._lock = threading.Lock()

    def permit(self, given_up: threading.Event) -> Permit:
        """Return the permit of one copy: it waits, and raises Failed once `given_up` is set."""

        def permit(count: int) -> None:
            COPIED_BYTES.inc(count)
            if given_up.wait(self.pause_after(count, now=time.monotonic())):
                raise Failed("copy_timed_out", "Copying from the prefix took too long.")

        return permit

    def pause_after(self, size_bytes: int, *, now: float) -> float:
        """Return how many seconds to pause after reading `size_bytes`. Thread-safe.

        `now` is monotonic, in seconds.
        """
        if not self._bytes_per_second:
            return 0.0
        with self._lock:
            self._free_at = max(self._free_at, now) + size_bytes / self._bytes_per_second
            return self._free_at - now

    def seconds_for(self, size_bytes: int, *, readers: int) -> float:
        """Return how long reading `size_bytes` may pause in total while `readers` share the rate."""
        return size_bytes * readers / self._bytes_per_second if self._bytes_per_second else 0.0
