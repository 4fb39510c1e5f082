"""How often the watcher does what no operator needs to set. Frozen values; tests pass shorter ones."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Periods and pauses, in seconds."""

    heartbeat_seconds: float = 2.0
    """Between two reports: five of them fit into a lease, so that one may be lost."""
    standby_seconds: float = 1.0
    """Between two attempts to take the lease of another watcher."""
    first_pause_seconds: float = 0.8
    last_pause_seconds: float = 3.0
    """While Redis is away. However long that was, what was dropped meanwhile is served 5 s after it."""
    resign_seconds: float = 1.0
    """How long giving the lease back may hold up the end of the process."""
    slow_seconds: float = 60.0
    """An examination or a scan that takes longer than this waits for a disk that does not answer."""
    attached_seconds: float = 1.0
    """How often it is checked that the prefix is still the watched directory: one system call."""
    alive_seconds: float = 5.0
    """How often a notifier must prove that hints still flow, and how long it may take."""
    first_notifier_pause_seconds: float = 0.2
    last_notifier_pause_seconds: float = 30.0
    healthy_notifier_seconds: float = 10.0
    """A notifier that lasted this long is replaced without a longer pause."""
