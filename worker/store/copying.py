"""Reading the shared prefix and writing the private store: the file work, one adapter at a time.

The prefix may be anything: replaced while it is read, a link to somewhere else, a pipe that never
answers. So its files are opened by the reader the watcher uses (`catalog.lora`), and what is copied is what
was opened, which must not change while it is read.
"""

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, Revision, WeightsFormat
from loradrop.catalog.lora.adapter_files import opened_adapter
from loradrop.catalog.lora.faults import Changed, Incomplete
from loradrop.catalog.lora.open_files import Roots, opened_directory
from loradrop.catalog.revision import RevisionHasher
from loradrop.worker.outcomes import Failed

_CHUNK_BYTES = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


Permit = Callable[[int], None]
"""Called with the size of each piece that was read, before the next is: may wait, or raise Failed."""


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter under the prefix. Without a `revision`, whatever its bytes are is accepted.

    `size_bytes` is what the catalog says it weighs: larger adapters are given more time.
    """

    prefix: Path
    path: str
    revision: Revision | None = None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """What was copied."""

    revision: Revision
    weights_format: WeightsFormat
    size_bytes: int


def copy_adapter(
    source: Source, into: Path, permit: Permit, *, allow_symlinks_to: Sequence[Path] = ()
) -> Copy:
    """Copy the configuration and the weights of `source` into the empty directory `into`, and digest them.

    Links may lead into the prefix and into `allow_symlinks_to`. Both files are on disk when it returns.
    Raises Failed (gone, unreadable, changing, disk full), Rejected (outside the prefix, not a regular
    file), and what `permit` raises.
    """
    roots = Roots((source.prefix, *allow_symlinks_to))
    with (
        _as_outcomes(source),
        opened_directory(source.prefix, source.path, roots) as directory,
        opened_adapter(directory, roots) as files,
    ):
        before = files.weights_stat
        if shutil.disk_usage(into).free < before.st_size:
            raise _disk_full()
        hasher = RevisionHasher(files.weights_format, files.config, before.st_size)
        _write(into / CONFIG_FILENAME, files.config)
        target = into / files.weights_format.filename
        copied = _copy_weights(files.weights, target, before.st_size, hasher, permit)
        if copied != before.st_size or _signature(before) != _signature(os.fstat(files.weights)):
            raise Changed
    return Copy(hasher.revision(), files.weights_format, len(files.config) + copied)


def digest_copy(directory: Path) -> Revision | None:
    """Return the revision of a private copy, or None where it is not whole."""
    try:
        config = (directory / CONFIG_FILENAME).read_bytes()
        # safetensors first: it is preferred where both are there
        weights_format = next(kind for kind in WeightsFormat if (directory / kind.filename).exists())
        with (directory / weights_format.filename).open("rb", buffering=0) as file:
            hasher = RevisionHasher(weights_format, config, os.fstat(file.fileno()).st_size)
            buffer = bytearray(_CHUNK_BYTES)
            view = memoryview(buffer)
            while count := file.readinto(buffer):
                hasher.update(view[:count])
    except (OSError, StopIteration):
        return None
    return hasher.revision()


def mend_copy(directory: Path, copy: Path, weights_format: WeightsFormat) -> None:
    """Move the files of `copy` over those of `directory`, a private copy that may be in use.

    Each is there at every moment, and a reader that has the old one open keeps it. Raises OSError.
    """
    for name in (CONFIG_FILENAME, weights_format.filename):
        (copy / name).rename(directory / name)
    sync_directory(directory)


def size_bytes(directory: Path) -> int:
    """Return the bytes of the files in `directory`; 0 where there are none to be seen."""
    try:
        return sum(file.stat().st_size for file in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return 0


@contextlib.contextmanager
def store_errors_as_failed() -> Iterator[None]:
    """Turn what the private store's disk refuses, inside, into Failed."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _disk_full() from error
        raise Failed(
            "store_unusable", f"The private store cannot be used: {error.strerror}. Check --lora-cache-dir."
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_weights(
    descriptor: int, target: Path, size_bytes: int, hasher: RevisionHasher, permit: Permit
) -> int:
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    copied = 0
    with target.open("xb") as out:  # buffered: an unbuffered file may write less than it is given
        while count := os.readv(descriptor, [buffer]):
            if copied + count > size_bytes:
                raise Changed  # it grew: what its writer adds must not fill the disk
            permit(count)
            hasher.update(buffer[:count])
            out.write(buffer[:count])
            out.flush()
            _start_write_back(out.fileno(), copied, count)
            copied += count
        os.fsync(out.fileno())
    return copied


def _start_write_back(descriptor: int, offset: int, count: int) -> None:
    """Let the disk begin with what was written, so that little is left to do when all of it is synced.

    Linux writes out what it is told not to keep, and keeps in memory what is still being written.
    """
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def _as_outcomes(source: Source) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, Incomplete) as error:
        raise Failed("source_gone", f"{source.path} is no longer whole under the prefix.") from error
    except Changed as error:
        raise Failed("changed_while_copied", "The adapter's files changed while they were copied.") from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _disk_full() from error
        raise Failed("source_unreadable", f"{source.path} could not be copied: {error.strerror}.") from error


def _disk_full() -> Failed:
    return Failed("disk_full", "The disk of --lora-cache-dir is full; free some space or choose another.")
