"""Opening an adapter's files without being fooled: regular files only, inside the allowed roots only.

A pipe would block whoever opens it, a device could be anything, and a symbolic link may lead to a
secret. So nothing is opened before `stat` has called it a regular file, never blocking, and a link is
followed only to a place inside the prefix or inside a directory the operator has named.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loradrop.catalog.lora.faults import Rejected

_OPEN = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
)
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


def is_gone(error: OSError) -> bool:
    """Return whether `error` says "not there", and not "cannot tell"."""
    return error.errno in _GONE


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories that links may lead into; they may be links themselves, and change."""

    directories: tuple[str | Path, ...]

    def resolve(self, path: str) -> str:
        """Return `path` with every link resolved; raises Rejected where it leaves the roots, and OSError."""
        real = os.path.realpath(path)
        for directory in self.directories:
            root = os.path.realpath(directory)
            if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
                return real
        raise Rejected(
            "link_escapes",
            f"{Path(path).name!r} is a link out of the prefix. Copy the files into the prefix, or start the"
            " watcher with --allow-symlinks-to.",
        )


@contextmanager
def opened(path: str, roots: Roots) -> Iterator[tuple[int, os.stat_result]]:
    """Open the regular file `path` for the length of the block, and yield its descriptor and `fstat`.

    Raises Rejected where it is something else or leaves `roots`, and OSError.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        path = roots.resolve(path)
        found = os.lstat(path)
    _check_regular(found, path)
    fd = os.open(path, _OPEN)
    try:
        held = os.fstat(fd)
        _check_regular(held, path)  # it may have been replaced between the two calls
        yield fd, held
    finally:
        os.close(fd)


def _check_regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        name = Path(path).name
        raise Rejected("not_a_file", f"{name} is not a regular file. Put a plain copy of the file there.")
