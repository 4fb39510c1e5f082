"""Copies under way, and revisions on their way out: each in a directory of its own that nobody looks into.

A copy's directory is locked while it is made, so that one left behind by a dead process is told from one
under way. Not here: what is copied, and where it goes (`revisions`).
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from loradrop.worker.store.pins import PIN, exclusively, locked

_log = logging.getLogger(__name__)


class Incoming:
    """Keeps true: what is here and locked by nobody belongs to nobody."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, made if need be. Clears what dead processes left; raises OSError."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, fcntl.LOCK_EX):
            for path in directory.iterdir():
                with exclusively(path) as ours:
                    if ours:
                        _log.info("unfinished copy removed path=%s", path.name)
                        shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a new directory with nothing but a file to pin it by; then it goes. Raises OSError."""
        path = self._directory / secrets.token_hex(8)
        with locked(self._directory, fcntl.LOCK_SH):  # nobody clears it before it is locked
            path.mkdir()
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            (path / PIN).touch()
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)  # renamed away when all went well
            os.close(descriptor)

    def discard(self, path: Path) -> bool:
        """Let `path`, on the same disk, vanish at once; return whether it was there. Raises OSError."""
        doomed = self._directory / f"{path.name}.{secrets.token_hex(4)}"
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def free_bytes(self) -> int:
        """Return the space left on the disk. Raises OSError."""
        return shutil.disk_usage(self._directory).free
