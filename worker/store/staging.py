"""Copies in progress and revisions being deleted: each in a directory of its own that no reader opens.

A copy's directory is locked while it is made, which tells one in progress from one left behind by a dead
process. Not here: what is copied, and where it goes (`revision_store`).
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


class Staging:
    """Invariant: what is here without a lock was left by a dead process."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, made if need be. Clears what dead processes left; raises OSError."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, fcntl.LOCK_EX):
            for path in directory.iterdir():
                with exclusively(path) as ours:
                    if ours:
                        _log.info("unfinished copy removed path=%s", path.name)
                        shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a new directory that holds only its pin file, and delete it afterwards. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)  # an operator may have deleted it
        path = self.directory / secrets.token_hex(8)
        with locked(self.directory, fcntl.LOCK_SH):  # no start clears it before it is locked
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
        """Delete `path`, on the same disk, atomically; return whether it was there. Raises OSError."""
        doomed = self.directory / f"{path.name}.{secrets.token_hex(4)}"
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True
