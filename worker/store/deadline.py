"""How long storage may take before it is taken for hung."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time that grows with the bytes to be read, up to a bound: other work waits for the same threads."""

    base_seconds: float = 30.0
    slowest_bytes_per_second: float = 10e6
    longest_seconds: float = 600.0

    def seconds_for(self, size_bytes: int) -> float:
        """Return how long reading `size_bytes` may take."""
        return min(self.base_seconds + size_bytes / self.slowest_bytes_per_second, self.longest_seconds)


DEADLINE = Deadline()
