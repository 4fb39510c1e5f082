"""Opening an adapter's directory and files inside the allowed roots, whatever is exchanged meanwhile.

The writer of a prefix may exchange a directory and a link between any two system calls, so a path that was
checked proves nothing about what is opened by it later. Instead:

    1. The adapter's directory is opened once, relative to the prefix; its files relative to that descriptor.
    2. `openat2(RESOLVE_BENEATH)` lets the kernel itself refuse every step that leads out of the directory.
    3. Where it refuses, or does not exist, a link may still lead to an allowed place. The path is then walked
       from the root it lies in, a step at a time, and the kernel follows no link (`O_NOFOLLOW`): where a step
       is one, its text says in which root to begin again, or that it leads out.

    prefix/mine -> a directory    (1) opens it: its files are read from it, wherever the name leads later
    prefix/mine -> /etc           (2) refuses, (3) finds `/etc` outside the roots: Rejected
    prefix/mine -> /dead/nfs      the same: what does not answer is never asked

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

_MOST_LINKS = 40
"""As many as the kernel follows."""
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

    def locate(self, path: str) -> tuple[str, list[str]] | None:
        """Return the root that the absolute `path` names a place in, and the steps from there to it.

        Links in `path` are not looked at, those of the roots themselves are.
        """
        normal = os.path.normpath(path)
        for directory in self.directories:
            real = os.path.realpath(directory)
            for root in (real, os.path.abspath(directory)):  # noqa: PTH100 - a Path would lose ".."
                if Path(normal).is_relative_to(root):
                    return real, list(Path(normal).relative_to(root).parts)
        return None


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
        return _open_step_by_step(parent, path, flags, roots)
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


def _open_step_by_step(parent: int, path: str, flags: int, roots: Roots) -> int:
    """Linux: open where `path` leads, having touched nothing outside the roots."""
    place = _walked(f"{os.readlink(f'/proc/self/fd/{parent}')}/{path}", path, roots)  # noqa: PTH115 - no path of ours
    try:
        mode = os.fstat(place).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _not_a_file(path)
        return os.open(f"/proc/self/fd/{place}", flags)
    finally:
        os.close(place)


def _walked(target: str, path: str, roots: Roots) -> int:
    """Return a descriptor without any effect (`O_PATH`) of what the absolute `target` leads to."""
    for _ in range(_MOST_LINKS):
        located = roots.locate(target)
        if located is None:
            raise _escapes(path)
        root, steps = located
        here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number, step in enumerate(steps):
                there = os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = there
                if stat.S_ISLNK(os.fstat(here).st_mode):
                    link = os.readlink("", dir_fd=here)
                    target = str(Path(root, *steps[:number], link, *steps[number + 1 :]))
                    break
            else:
                here, found = -1, here
                return found
        finally:
            if here >= 0:
                os.close(here)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _open_and_check(parent: int, path: str, flags: int, roots: Roots) -> int:
    """Elsewhere: open `path`, and keep it open if it lies inside the roots."""
    import fcntl  # noqa: PLC0415 - F_GETPATH is macOS's

    descriptor = os.open(path, flags, dir_fd=parent)
    try:
        get_path: int = fcntl.F_GETPATH  # type: ignore[attr-defined,unused-ignore]  # macOS only
        real = fcntl.fcntl(descriptor, get_path, bytes(1024)).rstrip(b"\0")
        if roots.locate(os.fsdecode(real)) is None:
            raise _escapes(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _escapes(path: str) -> Rejected:
    return Rejected(
        "link_escapes",
        f"{Path(path).name!r} is a link that leads out of the prefix. Copy the files into the prefix, or"
        " name the directory it leads to with --allow-symlinks-to.",
    )


def _not_a_file(name: str) -> Rejected:
    return Rejected(
        "not_a_file", f"{Path(name).name} is not a regular file. Put a plain copy of the file there."
    )
