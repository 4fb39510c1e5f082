"""Why hints can no longer be trusted to come."""

from pathlib import Path

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import DiscoveryError
from loradrop.watcher.prefix.findings import RootIdentity
from loradrop.watcher.prefix.scan import identity_of


class NotifierLost(Exception):
    """Hints can no longer be trusted to come; `reason` says why."""

    def __init__(self, code: str, message: str) -> None:
        """Remember the reason."""
        super().__init__(message)
        self.reason = Reason(code, message)


def identity_at(prefix: Path) -> RootIdentity:
    """Return which directory is at `prefix` now; raises NotifierLost where none is."""
    try:
        return identity_of(prefix)
    except DiscoveryError as error:
        raise NotifierLost(error.code, error.message) from error


def overflowed() -> NotifierLost:
    """Return what is raised where the kernel's queue of notifications was too short."""
    return NotifierLost(
        "notifications_overflowed",
        "More changed at once than the kernel keeps (fs.inotify.max_queued_events). Everything is"
        " scanned again.",
    )


def replaced(prefix: Path) -> NotifierLost:
    """Return what is raised where another directory, or none, is at the prefix now."""
    return NotifierLost(
        "prefix_replaced",
        f"The prefix {prefix} was renamed, removed, unmounted or mounted over. The watcher scans what is"
        " there now.",
    )


def unwatchable(error: OSError, prefix: Path) -> NotifierLost:
    """Return what is raised where `error` keeps the prefix from being watched."""
    if isinstance(error, FileNotFoundError):
        return NotifierLost(
            "prefix_missing", f"The prefix {prefix} does not exist. Create the directory, or mount it."
        )
    return NotifierLost(
        "notifier_unavailable", f"The prefix {prefix} cannot be watched ({error.strerror}); rescans go on."
    )
