"""One adapter's files as `stat` sees them: a few microseconds, no byte read.

The signature of an adapter is what `stat` says of its configuration and of the weights vLLM would read.
As long as it stays the same, so do the bytes, and nothing needs to be read again.
"""

import errno
import os
import stat
import struct
from dataclasses import dataclass

from loradrop.catalog.adapter import CONFIG_FILENAME, Reason, WeightsFormat
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.open_files import Roots, is_gone, open_directory, open_file
from loradrop.watcher.prefix.findings import Absent, Signature, Unreadable

SAFETENSORS = f"/{WeightsFormat.SAFETENSORS.filename}"
PICKLE = f"/{WeightsFormat.PICKLE.filename}"
CONFIG = f"/{CONFIG_FILENAME}"

pack_signature = struct.Struct("<10q").pack
"""Five numbers for the configuration, five for the weights.

The directory's stand for a file that is not there, so that what else is put into it is looked at."""

_NOTHING = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Look:
    """What `stat` said. `changed_ns` is the latest mtime or ctime of the files, 0 where there is none."""

    signature: Signature
    changed_ns: int
    weights_bytes: int


def look_at(name: str, root_fd: int, roots: Roots) -> Look | Absent | Unreadable:
    """Look at the directory `name` inside the prefix open at `root_fd`.

    Links are followed inside `roots`; one that leads out is looked at itself.
    """
    try:
        config, weights, directory = _files(name, root_fd, roots)
    except OSError as error:
        return Absent() if _is_impossible(name, root_fd) else Unreadable(unreadable(error))
    if config is None and weights is None and directory is None:
        return Absent()
    found = [file for file in (config, weights) if file is not None]
    return Look(
        signature=pack_signature(*_numbers(config or directory), *_numbers(weights or directory)),
        changed_ns=max((max(file.st_mtime_ns, file.st_ctime_ns) for file in found), default=0),
        weights_bytes=weights.st_size if weights is not None else 0,
    )


def signature_of(config: os.stat_result, weights: os.stat_result) -> Signature:
    """Return the signature of two files that are open."""
    return pack_signature(*_numbers(config), *_numbers(weights))


def unreadable(error: OSError) -> Reason:
    """Return the reason where the disk answers with `error`."""
    why = error.strerror or type(error).__name__
    if isinstance(error, PermissionError):
        return Reason(
            "not_readable", f"The watcher may not read the adapter ({why}). Give its user read permission."
        )
    return Reason(
        "disk_error",
        f"The disk answered with an error ({why}). Nothing is concluded from it; the watcher looks again.",
    )


def failed(error: Exception) -> Reason:
    """Return the reason where looking at an adapter failed in an unforeseen way."""
    return Reason(
        "inspection_failed",
        f"Looking at the adapter failed ({type(error).__name__}: {str(error)[:200]}). Nothing is concluded"
        " from it. This is a bug of loradrop: please report it with the adapter's files.",
    )


_Stat = os.stat_result | None


def _files(name: str, root_fd: int, roots: Roots) -> tuple[_Stat, _Stat, _Stat]:
    """Return configuration and weights of `name`, and `name` itself where one of them is not there."""
    itself = _stat(name, root_fd)
    try:
        directory = open_directory(root_fd, name, roots)
    except Rejected:
        return None, None, itself
    except OSError as error:
        if not is_gone(error):
            raise
        return None, None, itself if itself and stat.S_ISLNK(itself.st_mode) else None
    try:
        config = _file(CONFIG_FILENAME, directory, roots)
        weights = _file(WeightsFormat.SAFETENSORS.filename, directory, roots)
        if weights is None:
            weights = _file(WeightsFormat.PICKLE.filename, directory, roots)
        return config, weights, None if config and weights else os.fstat(directory)
    finally:
        os.close(directory)


def _file(name: str, directory: int, roots: Roots) -> _Stat:
    """Return the `stat` of what `name` in the open `directory` leads to, or its own where that is no file."""
    itself = _stat(name, directory)
    if itself is None or not stat.S_ISLNK(itself.st_mode):
        return itself
    try:
        descriptor, found = open_file(directory, name, roots)
    except Rejected:
        return itself
    except OSError as error:
        if is_gone(error):
            return None
        raise
    os.close(descriptor)
    return found


def _stat(name: str, directory: int) -> _Stat:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if is_gone(error):
            return None
        raise


def _is_impossible(name: str, root_fd: int) -> bool:
    """Return whether `name`, which may be that of a foreign record, is longer than any entry's."""
    try:
        os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _numbers(file: os.stat_result | None) -> tuple[int, int, int, int, int]:
    if file is None:
        return _NOTHING
    return file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns, file.st_dev
