"""Is this directory a complete, valid adapter? With a reason for every answer but yes.

Complete: both files are there, and the weights are as long as they declare. Valid: the configuration is
one vLLM can serve, the tensors are LoRA weights, and the two agree. Nothing of the weights but their
header is read, nothing is mapped into memory, and nothing in them is executed.

Not here: whether the files have stopped changing (`settle`), and whether they fit a base model (the
workers' business).
"""

import logging
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, AdapterState, Reason, Revision, WeightsFormat
from loradrop.catalog.lora.adapter_files import AdapterFiles, opened_adapter
from loradrop.catalog.lora.config import parse_config
from loradrop.catalog.lora.faults import Changed, Fault, Incomplete, Rejected
from loradrop.catalog.lora.open_files import Roots, is_gone, open_directory
from loradrop.catalog.lora.pickle_archive import check_sums
from loradrop.catalog.lora.tensors import lora_pairs
from loradrop.catalog.printable import printable
from loradrop.catalog.revision import RevisionHasher
from loradrop.watcher.prefix.findings import Facts, Signature
from loradrop.watcher.prefix.naming import is_atomic_writer, unusable
from loradrop.watcher.prefix.signature import failed, signature_of, unreadable
from loradrop.watcher.validation.mistakes import explain

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_ABANDONED_SECONDS = 60.0
"""A file that has not changed for this long is no longer written: its writer finished, or died."""
_ADAPTER_FILES = (CONFIG_FILENAME, *(weights.filename for weights in WeightsFormat))
_KEPT_BESIDE = re.compile(
    r"(~|\.(bak|backup|old|orig|prev|save|sha\d+|md5|sig|asc|lock|index\.json)[-~.\w]*)$", re.IGNORECASE
)
"""Names of backups, checksums and signatures: what nothing will be renamed from."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one directory was found to be. Ready has facts, and a revision where one was asked for."""

    state: AdapterState
    reason: Reason | None = None
    facts: Facts | None = None
    revision: Revision | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What this watcher admits. `roots` are where links may lead; `stopping` ends a long read.

    `clock` is the time that files' own are compared with, in seconds since 1970.
    """

    roots: Roots
    allow_pickle: bool = True
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time

    def is_fresh(self, found: os.stat_result) -> bool:
        """Return whether the writer of a file may still be at work."""
        return abs(self.clock() - found.st_ctime) < _ABANDONED_SECONDS


@dataclass(frozen=True, slots=True)
class Proof:
    """A directory that was complete and valid when it had this signature; `revision` if it was digested."""

    signature: Signature
    facts: Facts
    revision: Revision | None


def inspect_adapter(
    path: str | Path,
    *,
    allow_pickle: bool = True,
    allow_symlinks_to: Sequence[str | Path] = (),
    with_revision: bool = False,
) -> Inspection:
    """Return what the watcher would make of the directory at `path`, if it stood still; never raises.

    Links may lead into the directory that holds `path`, and into `allow_symlinks_to`.
    With `with_revision` all bytes are read: checksums are verified, and the revision is told.
    """
    directory = Path(path).absolute()
    reason = unusable(directory.name)
    if reason is not None:
        return Inspection(AdapterState.REJECTED, reason)
    try:
        rules = Rules(Roots((directory.parent, *allow_symlinks_to)), allow_pickle)
        if not directory.is_symlink() and not directory.is_dir():
            raise Rejected("not_a_directory", f"{directory} is not a directory. Name an adapter's directory.")
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            proof = prove(directory.name, parent, rules, digest=with_revision)
        finally:
            os.close(parent)
    except Fault as error:
        return Inspection(error.state, error.reason)
    except OSError as error:
        return Inspection(AdapterState.UNKNOWN, unreadable(error))
    except Exception as error:
        # One adapter, however strange, must not keep a caller from looking at the others.
        _logger.exception("Looking at an adapter failed path=%s", printable(str(directory)))
        return Inspection(AdapterState.UNKNOWN, failed(error))
    return Inspection(AdapterState.READY, None, proof.facts, proof.revision)


def prove(name: str, root_fd: int, rules: Rules, *, digest: bool) -> Proof:
    """Return the proof that the directory `name` inside the prefix open at `root_fd` is an adapter.

    With `digest` every byte is read and the revision told; the files may not change meanwhile.
    Raises Incomplete, Rejected, Changed, and OSError where nothing can be concluded.
    """
    try:
        directory = open_directory(root_fd, name, rules.roots)
        try:
            return _prove(directory, rules, digest)
        finally:
            os.close(directory)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _is_link(name, root_fd):
            raise Incomplete(
                "link_dangling", "The directory is a link that leads nowhere. Put the adapter where it leads."
            ) from error
        if is_gone(error):
            raise Changed from error  # a file was there a moment ago
        raise


def _is_link(name: str, root_fd: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _prove(directory: int, rules: Rules, digest: bool) -> Proof:
    if digest:
        _check_no_writer(directory, rules)
    try:
        opened = opened_adapter(directory, rules.roots, allow_pickle=rules.allow_pickle)
    except Incomplete as error:
        raise explain(directory, error) from error
    with opened as files:
        if digest:
            _check_written(files, rules, up_to=1)  # the rest later: what is wrong with the beginning is final
        config = parse_config(files.config)
        lora_pairs(files.declared_tensors(), config)
        if digest:
            _check_written(files, rules, up_to=files.weights_stat.st_size)
        facts = Facts(
            files.weights_format,
            len(files.config) + files.weights_stat.st_size,
            config.max_rank,
            config.base_model,
        )
        signature = signature_of(files.config_stat, files.weights_stat)
        revision = _digest(files, rules) if digest else None
        if signature_of(files.config_stat, os.fstat(files.weights)) != signature:
            raise Changed
    return Proof(signature, facts, revision)


def _check_written(files: AdapterFiles, rules: Rules, *, up_to: int) -> None:
    """Raise Changed where weights were allocated in full and a byte before `up_to` is not written yet.

    What was not written reads as zeros, so the file may look whole. A sparse file looks the same and is
    whole; it is held back only as long as its writer may still be at work.
    """
    if not rules.is_fresh(files.weights_stat):
        return
    try:
        hole = os.lseek(files.weights, 0, os.SEEK_HOLE)
    except OSError:  # an empty file, or a filesystem that does not tell
        return
    if hole < up_to:
        raise Changed(
            "weights_unwritten",
            f"{files.weights_format.filename} has {files.weights_stat.st_size} bytes, and nothing was written"
            f" at byte {hole} yet. It is published once all is written, or has not changed for"
            f" {_ABANDONED_SECONDS:g} s.",
        )


def _check_no_writer(directory: int, rules: Rules) -> None:
    """Raise Changed where a copy that will replace one of the files is under way beside it.

    rsync, scp and careful publishers write to a temporary name first; one without a write for
    long was left behind.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_atomic_writer(entry.name) or not _is_unfinished(entry.name):
                continue
            found = entry.stat(follow_symlinks=False)
            if rules.is_fresh(found):
                raise Changed(
                    "writer_active",
                    f"An update is under way: {printable(entry.name)} lies beside the files. It is published"
                    " once that is renamed or removed.",
                )


def _is_unfinished(name: str) -> bool:
    if name in _ADAPTER_FILES or _KEPT_BESIDE.search(name):
        return False
    return any(file in name for file in _ADAPTER_FILES)


def _digest(files: AdapterFiles, rules: Rules) -> Revision:
    weights_bytes = files.weights_stat.st_size
    if files.weights_format is WeightsFormat.PICKLE:
        check_sums(files.weights, weights_bytes)
    hasher = RevisionHasher(files.weights_format, files.config, weights_bytes)
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, weights_bytes)))
    with FileIO(files.weights, closefd=False) as file:
        file.seek(0)
        left = weights_bytes
        while left > 0:
            count = file.readinto(buffer[:left])
            if not count or rules.stopping():
                raise Changed
            hasher.update(buffer[:count])
            left -= count
    return hasher.revision()
