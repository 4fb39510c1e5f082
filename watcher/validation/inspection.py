"""Is this directory a complete, valid adapter? With a reason for every answer but yes.

Complete: both files are there, and the weights are as long as they declare. Valid: the configuration is
one vLLM can serve, the tensors are LoRA weights, and the two agree. Nothing of the weights but their
header is read, nothing is mapped into memory, and nothing in them is executed.

Not here: whether the files have stopped changing (`settle`), and whether they fit a base model (the
workers' business).
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, AdapterState, Reason, Revision, WeightsFormat
from loradrop.catalog.lora import pickle_archive as pickle_check
from loradrop.catalog.lora import safetensors_header as safetensors_proof
from loradrop.catalog.lora.config import MAX_CONFIG_BYTES, parse_config
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.catalog.lora.open_files import Roots, is_gone, opened
from loradrop.catalog.lora.tensors import check_tensors
from loradrop.catalog.printable import shown
from loradrop.catalog.revision import RevisionHasher
from loradrop.watcher.prefix.findings import Facts, Signature
from loradrop.watcher.prefix.naming import is_atomic_writer, unusable
from loradrop.watcher.prefix.signature import failed, signature_of, unreadable

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_ABANDONED_SECONDS = 60.0
"""A temporary file that nobody has written to for this long was left behind by a writer that died."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one directory was found to be. Ready has facts, and a revision where one was asked for."""

    state: AdapterState
    reason: Reason | None = None
    facts: Facts | None = None
    revision: Revision | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What this watcher admits. `roots` are where links may lead; `stopping` ends a long read."""

    roots: Roots
    allow_pickle: bool = True
    stopping: Callable[[], bool] = lambda: False


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
        if not directory.is_dir() and not directory.is_symlink():
            raise Rejected("not_a_directory", f"{directory} is not a directory. Name an adapter's directory.")
        proof = prove(str(directory), rules, digest=with_revision)
    except (Incomplete, Rejected, Changed) as error:
        return Inspection(error.state, error.reason)
    except OSError as error:
        return Inspection(AdapterState.UNKNOWN, unreadable(error))
    except Exception as error:
        # One adapter, however strange, must not keep a caller from looking at the others.
        _logger.exception("Looking at an adapter failed path=%s", shown(str(directory)))
        return Inspection(AdapterState.UNKNOWN, failed(error))
    return Inspection(AdapterState.READY, None, proof.facts, proof.revision)


def prove(directory: str, rules: Rules, *, digest: bool) -> Proof:
    """Return the proof that `directory` is a complete, valid adapter.

    With `digest` every byte is read and the revision told; the files may not change meanwhile.
    Raises Incomplete, Rejected, Changed, and OSError where nothing can be concluded.
    """
    try:
        return _prove(directory, rules, digest)
    except OSError as error:
        if is_gone(error):
            raise Changed from error  # a file was there a moment ago
        raise


def _prove(directory: str, rules: Rules, digest: bool) -> Proof:
    if os.path.islink(directory):  # noqa: PTH114 - a Path costs more than the call
        directory = rules.roots.resolve(directory)
        if not os.path.lexists(directory):
            raise Incomplete(
                "link_dangling", "The directory is a link that leads nowhere. Put the adapter where it leads."
            )
    if digest:
        _check_no_writer(directory)
    config = _config_bytes(directory, rules)
    weights_format = _format(directory, rules)
    parsed = parse_config(config[0])
    with opened(f"{directory}/{weights_format.filename}", rules.roots) as (fd, held):
        if weights_format is WeightsFormat.SAFETENSORS:
            tensors = safetensors_proof.prove(fd, held.st_size)
        else:
            tensors = pickle_check.prove_pickle(fd, held.st_size)
        check_tensors(tensors, parsed)
        facts = Facts(weights_format, len(config[0]) + held.st_size, parsed.max_rank, parsed.base_model)
        signature = signature_of(config[1], held)
        revision = _digest(fd, config[0], facts, rules) if digest else None
        if signature_of(config[1], os.fstat(fd)) != signature:
            raise Changed
    return Proof(signature, facts, revision)


def _check_no_writer(directory: str) -> None:
    """Raise Changed where a copy that will replace one of the files is under way beside it.

    rsync, scp and careful publishers write to a temporary name first; one that nobody has written to for
    long was left behind.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_atomic_writer(entry.name) or not _is_unfinished(entry.name):
                continue
            found = entry.stat(follow_symlinks=False)
            if abs(time.time() - found.st_ctime) < _ABANDONED_SECONDS:
                raise Changed(
                    "writer_active",
                    f"An update is under way: {shown(entry.name)} lies beside the files. It is published once"
                    " that is renamed or removed.",
                )


def _is_unfinished(name: str) -> bool:
    finished = {CONFIG_FILENAME, *(weights.filename for weights in WeightsFormat)}
    return name not in finished and any(file in name for file in finished)


def _config_bytes(directory: str, rules: Rules) -> tuple[bytes, os.stat_result]:
    try:
        with opened(f"{directory}/{CONFIG_FILENAME}", rules.roots) as (fd, held):
            if held.st_size > MAX_CONFIG_BYTES:
                raise Rejected(
                    "config_too_large",
                    f"adapter_config.json has {held.st_size} bytes; PEFT's have less than {MAX_CONFIG_BYTES}."
                    " Save the adapter again with PEFT.",
                )
            text = os.pread(fd, MAX_CONFIG_BYTES + 1, 0)
            if len(text) != held.st_size:
                raise Changed
            return text, held
    except OSError as error:
        if is_gone(error):
            raise Incomplete(
                "config_missing",
                "adapter_config.json is missing. Wait for the copy, or copy it into the directory.",
            ) from error
        raise


def _format(directory: str, rules: Rules) -> WeightsFormat:
    for weights_format in (WeightsFormat.SAFETENSORS, WeightsFormat.PICKLE):
        if not _exists(f"{directory}/{weights_format.filename}"):
            continue
        if weights_format is WeightsFormat.PICKLE and not rules.allow_pickle:
            raise Rejected(
                "pickle_not_allowed",
                "Only adapter_model.bin is there, and --no-allow-pickle is set. Save it as safetensors.",
            )
        return weights_format
    raise Incomplete(
        "weights_missing",
        "Neither adapter_model.safetensors nor adapter_model.bin is there. Wait for the copy, or copy it"
        " again.",
    )


def _exists(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - Path.exists() would call an unreadable file missing
    except OSError as error:
        if is_gone(error):
            return False
        raise
    return True


def _digest(fd: int, config: bytes, facts: Facts, rules: Rules) -> Revision:
    if facts.format is WeightsFormat.PICKLE:
        pickle_check.check_sums(fd)
    weights_bytes = facts.size_bytes - len(config)
    hasher = RevisionHasher(facts.format, config, weights_bytes)
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, max(weights_bytes, 1))))
    with FileIO(fd, closefd=False) as file:
        file.seek(0)
        left = weights_bytes
        while left > 0:
            count = file.readinto(buffer[:left])
            if not count or rules.stopping():
                raise Changed
            hasher.update(buffer[:count])
            left -= count
    return hasher.revision()
