"""Opening an adapter's directory and files inside the allowed roots, whatever is exchanged meanwhile.

The writer of a prefix may exchange a directory and a link between any two system calls, so a path that was
checked proves nothing about what is opened by it later. Instead:

    1. The adapter's directory is opened once, relative to the prefix; its files relative to that descriptor.
    2. `openat2(RESOLVE_BENEATH)` lets the kernel itself refuse every step that leads out of the directory.
    3. Where it refuses, or does not exist, a link may still lead to an allowed place. What the path leads to
       is then opened without any effect (`O_PATH`), the kernel is asked where that lies
       (`/proc/self/fd/N`), and only what lies inside the roots is opened for reading, through the same
       descriptor.

    prefix/mine -> a directory    (1) opens it: its files are read from it, wherever the name leads later
    prefix/mine -> /etc           (2) refuses, (3) finds `/etc` outside the roots: Rejected
    exchanged between (2) and (3) (3) judges what it has opened itself

Only regular files are read, and nothing is opened blocking: a pipe would block its reader.
"""

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loradrop.catalog.lora.faults import Rejected

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = _READ | os.O_DIRECTORY
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_UNDECIDED = frozenset({
    errno.EXDEV, errno.ELOOP, errno.EAGAIN, errno.ENXIO, errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG,
})  # fmt: skip
"""Answers of openat2 after which the path must be looked at: it leads out, a race, a socket, no such call."""


class _How(ctypes.Structure):
    _fields_ = [(field, ctypes.c_uint64) for field in ("flags", "mode", "resolve")]


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def is_gone(error: OSError) -> bool:
    """Return whether `error` says "not there", and not "cannot tell"."""
    return error.errno in _GONE


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories that links may lead into; they may be links themselves, and change."""

    directories: tuple[str | Path, ...]

    def contain(self, real: str) -> bool:
        """Return whether the path `real`, which holds no links, lies in one of them."""
        for directory in self.directories:
            root = os.path.realpath(directory)
            if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
                return True
        return False


@contextmanager
def opened_directory(prefix: str | Path, path: str, roots: Roots) -> Iterator[int]:
    """Open the directory `path` of `prefix` for the length of the block, and yield its descriptor.

    Raises Rejected where it lies outside `roots`, and OSError.
    """
    parent = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = open_directory(parent, path, roots)
    finally:
        os.close(parent)
    try:
        yield directory
    finally:
        os.close(directory)


def open_directory(parent: int, path: str, roots: Roots) -> int:
    """Open the directory `path` in the open `parent`; raises as `opened_directory` does."""
    return _open_within(parent, path, _DIRECTORY, roots)


def open_file(directory: int, name: str, roots: Roots) -> tuple[int, os.stat_result]:
    """Open the regular file `name` in the open `directory`, and return its descriptor and `fstat`.

    Raises Rejected where it is something else or lies outside `roots`, and OSError.
    """
    descriptor = _open_within(directory, name, _READ, roots)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _not_a_file(name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Return `length` bytes from `offset`, or fewer where the file ends before; raises OSError."""
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _open_within(parent: int, path: str, flags: int, roots: Roots) -> int:
    beneath = _open_beneath(parent, path, flags)
    if beneath is not None:
        return beneath
    if sys.platform == "linux":
        return _open_after_check(parent, path, flags, roots)
    return _open_and_check(parent, path, flags, roots)


def _open_beneath(parent: int, path: str, flags: int) -> int | None:
    """Return `path`, opened without leaving `parent`, or None where the kernel does not decide it."""
    if _libc is None:
        return None
    how = _How(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    found: int = _libc.syscall(_SYS_OPENAT2, parent, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if found >= 0:
        return found
    error = ctypes.get_errno()
    if error in _UNDECIDED:
        return None
    raise OSError(error, os.strerror(error), path)


def _open_after_check(parent: int, path: str, flags: int, roots: Roots) -> int:
    """Linux: find out where `path` leads without opening it, then open just that."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=parent)
    except OSError:  # what is not there is not told apart from what is, outside the roots
        _check_inside(os.path.realpath(f"/proc/self/fd/{parent}/{path}"), path, roots)
        raise
    try:
        itself = f"/proc/self/fd/{place}"
        _check_inside(os.readlink(itself), path, roots)  # noqa: PTH115 - it is no path of ours
        mode = os.fstat(place).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _not_a_file(path)
        return os.open(itself, flags)
    finally:
        os.close(place)


def _open_and_check(parent: int, path: str, flags: int, roots: Roots) -> int:
    """Elsewhere: open `path`, and keep it open if it lies inside the roots."""
    import fcntl  # noqa: PLC0415 - F_GETPATH is macOS's

    descriptor = os.open(path, flags, dir_fd=parent)
    try:
        get_path: int = fcntl.F_GETPATH  # type: ignore[attr-defined,unused-ignore]  # macOS only
        real = fcntl.fcntl(descriptor, get_path, bytes(1024)).rstrip(b"\0")
        _check_inside(os.fsdecode(real), path, roots)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_inside(real: str, path: str, roots: Roots) -> None:
    if not roots.contain(real):
        raise Rejected(
            "link_escapes",
            f"{Path(path).name!r} is a link that leads out of the prefix. Copy the files into the prefix, or"
            " name the directory it leads to with --allow-symlinks-to.",
        )


def _not_a_file(name: str) -> Rejected:
    return Rejected(
        "not_a_file", f"{Path(name).name} is not a regular file. Put a plain copy of the file there."
    )
