"""Whether `adapter_model.bin` is whole and harmless, and what it holds, with nothing in it executed.

A `.bin` is a zip file around a pickle. Whole: the zip's directory stands at its end, and every record's
checksum holds. Harmless: the pickle consists of the few opcodes and the few names that tensors need, an
allow-list, since every deny-list of this kind has been bypassed. The opcodes are read, never run: a small
machine builds the names and shapes of the tensors from them, so that a `.bin` is judged like safetensors.

torch finds records by name without regard to case, and loads another way what holds `constants.pkl`: so the
names of the records are an allow-list, too.

Not here: whether the tensors are those of a LoRA adapter (`tensors`).
"""

import re

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.pickle_opcodes import read_state_dict
from loradrop.catalog.lora.pickle_values import Unsafe
from loradrop.catalog.lora.tensors import Tensor
from loradrop.catalog.lora.zip_directory import (
    Damaged,
    NotAZip,
    Record,
    Truncated,
    check_record,
    read_directory,
    read_record,
)

_MAX_PICKLE_BYTES = 8 << 20
_MAX_SMALL_RECORD_BYTES = 1024
_STORAGE = re.compile(r"data/(0|[1-9][0-9]{0,8})")
_SMALL_RECORDS = {
    "version": re.compile(rb"([1-9]|10)\n?"),
    "byteorder": re.compile(rb"little"),
    ".format_version": re.compile(rb"[0-9]{1,4}"),
    ".storage_alignment": re.compile(rb"[1-9][0-9]{0,5}"),
    ".data/serialization_id": re.compile(rb"[0-9]*"),
}
"""What torch.save writes beside the pickle and the storages. torch reads versions 1 to 10."""


def read_archive(fd: int, size_bytes: int) -> list[Tensor]:
    """Return the tensors of the `.bin` open at `fd`, without reading their bytes.

    Raises Incomplete where the end is missing, Rejected, and OSError.
    """
    if size_bytes == 0:
        raise Incomplete(
            "weights_truncated", "adapter_model.bin is empty. Wait for the copy, or copy it again."
        )
    try:
        records = _read_records(fd, size_bytes)
        storages = {
            found[1]: record.size_bytes
            for name, record in records.items()
            if (found := _STORAGE.fullmatch(name)) is not None
        }
        return read_state_dict(read_record(fd, records["data.pkl"]), storages)
    except Unsafe as error:
        raise Rejected(
            "pickle_unsafe",
            f"adapter_model.bin holds more than tensors ({error}). Nothing was run. Save it as safetensors.",
        ) from error
    except ValueError as error:
        raise _invalid(str(error)) from error


def check_sums(fd: int, size_bytes: int) -> None:
    """Return where every record's checksum holds; reads the whole file. Raises Rejected, and OSError."""
    try:
        for record in _read_records(fd, size_bytes).values():
            check_record(fd, record)
    except ValueError as error:
        raise _invalid(str(error)) from error


def _read_records(fd: int, size_bytes: int) -> dict[str, Record]:
    """Return the records by their names inside the archive's only directory."""
    try:
        found = read_directory(fd, size_bytes)
    except Truncated as error:
        raise Incomplete(
            "weights_truncated",
            f"adapter_model.bin has {size_bytes} bytes and no end yet. Wait for the copy, or copy it again.",
        ) from error
    except NotAZip as error:
        raise Rejected(
            "pickle_legacy",
            "adapter_model.bin is not a zip file, so nothing proves that it is whole. Save it as safetensors,"
            " or with torch 1.6 or later.",
        ) from error
    top = next(iter(found), "").partition("/")[0] + "/"
    records = {name.removeprefix(top): record for name, record in found.items() if name.startswith(top)}
    if len(records) != len(found) or not {"data.pkl", "version"} <= records.keys():
        raise Damaged("it is not what torch.save writes")
    for name, record in records.items():
        if _STORAGE.fullmatch(name) is None:
            _check_small(fd, name, record)
    return records


def _check_small(fd: int, name: str, record: Record) -> None:
    if name != "data.pkl" and name not in _SMALL_RECORDS:
        raise Damaged(f"it holds the record {name[:80]!r}, which torch.save does not write")
    limit = _MAX_PICKLE_BYTES if name == "data.pkl" else _MAX_SMALL_RECORD_BYTES
    if record.size_bytes > limit:
        raise Damaged(f"its record {name!r} has {record.size_bytes} bytes, more than {limit}")
    if name != "data.pkl" and _SMALL_RECORDS[name].fullmatch(read_record(fd, record)) is None:
        raise Damaged(f"its record {name!r} says what torch does not read")


def _invalid(what: str) -> Rejected:
    return Rejected(
        "pickle_invalid",
        f"adapter_model.bin is damaged or is something else: {what[:160]}. Save it as safetensors.",
    )
