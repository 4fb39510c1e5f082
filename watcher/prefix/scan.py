"""The scan of a whole prefix that the watcher repeats.

A scan is one `scandir` of the prefix and two `stat` by known name for each adapter. It reads no file and
concludes nothing: it tells which names look different from what is known. It is the whole truth or an
exception: a prefix that is missing, unmounted or unreadable is never an empty one.
"""

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.prefix.findings import RootIdentity, Signature
from loradrop.watcher.prefix.naming import is_ignored
from loradrop.watcher.prefix.signature import CONFIG, SAFETENSORS, Look, look_at, pack_signature

_logger = logging.getLogger(__name__)


class PrefixMissing(DiscoveryError):
    """The prefix is not there: not made yet, not mounted, or renamed away."""

    code = "prefix_missing"


class PrefixNotADirectory(DiscoveryError):
    """The prefix is a file."""

    code = "prefix_not_a_directory"


class PrefixMarkerMissing(DiscoveryError):
    """The prefix is there without the marker file it must hold: probably nothing is mounted on it."""

    code = "prefix_marker_missing"


class HasSignature(Protocol):
    """What a scan needs to know of a name that was seen before."""

    @property
    def signature(self) -> Signature | None:
        """The signature it had when it was examined, None where it never was."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One whole look at a prefix.

    `names` are all directories that may be adapters; `changed` of them look different from what is known.
    """

    identity: RootIdentity
    names: Set[str]
    changed: tuple[str, ...]


@contextmanager
def open_root(
    prefix: str | os.PathLike[str], *, marker: str | None = None
) -> Iterator[tuple[int, RootIdentity]]:
    """Open the prefix for the length of the block; yield its descriptor and identity.

    Where the block ends without an exception, the prefix was the same directory all along.
    Raises DiscoveryError.
    """
    try:
        fd = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _translated(error, prefix) from error
    try:
        identity = _identity(fd, os.fstat(fd))
        _check_marker(fd, marker, prefix)
        yield fd, identity
        if identity_of(prefix) != identity:
            raise PrefixMissing(
                f"The prefix {prefix} was replaced while it was read. The watcher looks again."
            )
    finally:
        os.close(fd)


def identity_of(prefix: str | os.PathLike[str]) -> RootIdentity:
    """Return which directory `prefix` is now; raises DiscoveryError."""
    try:
        found = os.stat(prefix)  # noqa: PTH116 - the same call as everywhere in this file
    except OSError as error:
        raise _translated(error, prefix) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _translated(NotADirectoryError(), prefix)
    return _identity(prefix, found)


def _identity(path: int | str | os.PathLike[str], found: os.stat_result) -> RootIdentity:
    try:
        filesystem = os.statvfs(path).f_fsid
    except OSError:
        filesystem = 0
    return RootIdentity(found.st_dev, found.st_ino, filesystem)


def scan(
    prefix: str | os.PathLike[str],
    known: Mapping[str, HasSignature],
    roots: Roots,
    *,
    marker: str | None = None,
) -> Scan:
    """Look at the whole prefix, through links inside `roots`, and tell what differs from `known`.

    Raises DiscoveryError.
    """
    with open_root(prefix, marker=marker) as (root_fd, identity):
        try:
            return _scan(root_fd, identity, known, roots)
        except OSError as error:
            raise _translated(error, prefix) from error


def list_names(root_fd: int, prefix: str | os.PathLike[str]) -> frozenset[str]:
    """Return all names in `prefix`, open at `root_fd`; raises DiscoveryError."""
    try:
        return frozenset(os.listdir(root_fd))
    except OSError as error:
        raise _translated(error, prefix) from error


def _scan(root_fd: int, identity: RootIdentity, known: Mapping[str, HasSignature], roots: Roots) -> Scan:
    # The hot loop: at 10 000 adapters every microsecond here is 10 ms a scan, hence what is inlined, and
    # what is asked of new names only.
    names: set[str] = set()
    changed: list[str] = []
    status, is_link = os.stat, stat.S_ISLNK
    with os.scandir(root_fd) as entries:
        for entry in entries:
            name = entry.name
            before = known.get(name)
            expected = None if before is None else before.signature
            if expected is None and not _may_be_adapter(entry):
                continue
            names.add(name)
            is_rare = entry.is_symlink()
            if not is_rare:
                try:
                    c = status(name + CONFIG, dir_fd=root_fd, follow_symlinks=False)
                    w = status(name + SAFETENSORS, dir_fd=root_fd, follow_symlinks=False)
                    is_rare = is_link(c.st_mode) or is_link(w.st_mode)
                except OSError:
                    is_rare = True
            if is_rare:
                if expected is None or expected != _rare_signature(name, root_fd, roots):
                    changed.append(name)
                continue
            signature = pack_signature(
                c.st_ino, c.st_size, c.st_mtime_ns, c.st_ctime_ns, c.st_dev,
                w.st_ino, w.st_size, w.st_mtime_ns, w.st_ctime_ns, w.st_dev,
            )  # fmt: skip
            if expected != signature:
                changed.append(name)
    return Scan(identity, names, tuple(changed))


def _may_be_adapter(entry: "os.DirEntry[str]") -> bool:
    if is_ignored(entry.name):
        return False
    try:
        # Links are not followed: whatever one leads to, it is examined by itself and stops no other entry.
        return entry.is_symlink() or entry.is_dir(follow_symlinks=False)
    except OSError:
        return True  # it is there; the examination says what is wrong with it


def _rare_signature(name: str, root_fd: int, roots: Roots) -> bytes | None:
    look = look_at(name, root_fd, roots)
    return look.signature if isinstance(look, Look) else None


def _check_marker(root_fd: int, marker: str | None, prefix: str | os.PathLike[str]) -> None:
    if marker is None:
        return
    try:
        os.stat(marker, dir_fd=root_fd)
    except OSError as error:
        raise PrefixMarkerMissing(
            f"The prefix {prefix} does not hold its marker file {marker!r}. Mount it, or create the file."
        ) from error


def _translated(error: OSError, prefix: str | os.PathLike[str]) -> DiscoveryError:
    if isinstance(error, FileNotFoundError):
        return PrefixMissing(f"The prefix {prefix} does not exist. Create the directory, or mount it.")
    if isinstance(error, NotADirectoryError):
        return PrefixNotADirectory(
            f"The prefix {prefix} is not a directory. Name the one that holds the adapters."
        )
    if isinstance(error, PermissionError):
        return DiscoveryError(
            f"The prefix {prefix} may not be read. Give the watcher's user read permission."
        )
    return DiscoveryError(
        f"The prefix {prefix} cannot be read ({error.strerror}). Nothing is removed because of it."
    )
