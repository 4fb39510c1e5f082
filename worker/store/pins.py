"""Which revisions of a shared store are in use: advisory locks, which end with their process however it ends.

A process that may use a revision holds a shared lock on the file `PIN` in its directory; one that removes a
revision holds an exclusive lock.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, Revision, WeightsFormat

PIN = ".pin"
"""Its modification time is when the revision was last pinned."""


@dataclass(slots=True)
class Pinned:
    """A revision that stays in the store until `release`."""

    revision: Revision
    directory: Path
    _descriptor: int = field(repr=False)

    def is_there(self) -> bool:
        """Return whether its files are where they were: an operator may have deleted the store."""
        try:
            pin_file = os.stat(self.directory / PIN)  # noqa: PTH116 - beside fstat
            is_same = os.path.samestat(pin_file, os.fstat(self._descriptor))
            os.stat(self.directory / CONFIG_FILENAME)  # noqa: PTH116 - as above
        except OSError:
            return False
        return is_same and any((self.directory / kind.filename).exists() for kind in WeightsFormat)

    def release(self) -> None:
        """Let the store evict the revision again. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def pin(directory: Path, revision: Revision) -> Pinned | None:
    """Return `directory`, which holds `revision`, pinned; None where it is not there, or not any more."""
    try:
        descriptor = os.open(directory / PIN, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        evicted = os.stat(directory / PIN).st_ino != os.fstat(descriptor).st_ino  # noqa: PTH116 - beside fstat
    except (FileNotFoundError, NotADirectoryError):
        evicted = True
    if evicted:
        os.close(descriptor)
        return None
    return Pinned(revision, directory, descriptor)


def note_use(directory: Path) -> None:
    """Note that the revision in `directory` is pinned now."""
    os.utime(directory / PIN)


def last_used(directory: Path) -> float:
    """Return when (seconds since the epoch) `directory` was last pinned; now where it is gone."""
    try:
        return (directory / PIN).stat().st_mtime
    except FileNotFoundError:
        return time.time()


@contextlib.contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock (`fcntl.LOCK_SH` or `LOCK_EX`) on `path`, waiting for it; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusively(path: Path) -> Iterator[bool]:
    """Yield whether `path` exists and could be locked exclusively; the lock is held meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    else:
        yield True
    finally:
        os.close(descriptor)
