"""The proof that `adapter_model.bin` is whole and harmless, with nothing in it executed.

A `.bin` is a zip file around a pickle. Whole: the zip's directory stands at its end, and every record's
checksum holds. Harmless: the pickle consists of the few opcodes and the few names that tensors need, an
allow-list, since every deny-list of this kind has been bypassed. The opcodes are read, never run: a small
machine builds the names and shapes of the tensors from them, so that a `.bin` is judged like safetensors.

Not here: whether the tensors are those of a LoRA adapter (`lora_tensors`).
"""

import os
import struct
import zipfile
from typing import IO

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.pickle_opcodes import Unsafe, read_state_dict
from loradrop.catalog.lora.tensors import Tensor

_MAX_PICKLE_BYTES = 8 << 20
_MAX_RECORDS = 100_000
_MAX_DIRECTORY_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT_BYTES = 1 << 16
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
"""What zipfile raises about files that are no good zip files."""


def prove_pickle(fd: int, size_bytes: int) -> list[Tensor]:
    """Return the tensors of the `.bin` open at `fd`, without reading their bytes.

    Raises Incomplete where the end is missing, Rejected, and OSError.
    """
    if size_bytes == 0:
        raise Incomplete(
            "weights_truncated", "adapter_model.bin is empty. Wait for the copy, or copy it again."
        )
    _check_directory(fd, size_bytes)
    with _reader(fd) as file, _archive(file) as archive:
        records = _stored_records(archive, size_bytes)
        pickles = [record for record in records.values() if record.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise _invalid("it does not hold one data.pkl of a sensible size")
        try:
            program = archive.read(pickles[0])
        except _DAMAGE as error:
            raise _invalid(str(error)) from error
    sizes = {name.rpartition("/data/")[2]: record.file_size for name, record in records.items()}
    try:
        return read_state_dict(program, sizes)
    except Unsafe as error:
        raise Rejected(
            "pickle_unsafe",
            f"adapter_model.bin holds more than tensors ({error}). Nothing was run. Save it as safetensors.",
        ) from error
    except ValueError as error:
        raise _invalid(str(error)) from error


def check_sums(fd: int) -> None:
    """Return where every record's checksum holds; reads the whole file. Raises Rejected, and OSError."""
    with _reader(fd) as file, _archive(file) as archive:
        for record in archive.infolist():
            try:
                with archive.open(record) as content:
                    while content.read(_CHUNK_BYTES):
                        pass
            except _DAMAGE as error:
                raise _invalid(str(error)) from error


def _reader(fd: int) -> IO[bytes]:
    return os.fdopen(os.dup(fd), "rb")


def _archive(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except _DAMAGE as error:
        raise _invalid(str(error)) from error


def _check_directory(fd: int, size_bytes: int) -> None:
    # zipfile reads the whole directory into memory, so its claimed size is looked at first.
    start = max(0, size_bytes - _END.size - _MAX_COMMENT_BYTES)
    tail = os.pread(fd, size_bytes - start, start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        if os.pread(fd, 4, 0) == b"PK\x03\x04":
            raise Incomplete(
                "weights_truncated",
                f"adapter_model.bin has {size_bytes} bytes and no end yet. Wait for the copy, or copy it"
                " again.",
            )
        raise Rejected(
            "pickle_legacy",
            "adapter_model.bin is not a zip file, so nothing proves that it is whole. Save it as safetensors,"
            " or with torch 1.6 or later.",
        )
    end = _END.unpack_from(tail, at)
    records, directory_bytes = end[4], end[5]
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size : at - _LOCATOR.size + 4] == b"PK\x06\x07":
        locator = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        end_64 = os.pread(fd, _END_64.size, locator[2]) if locator[2] < size_bytes else b""
        if len(end_64) == _END_64.size:
            fields = _END_64.unpack(end_64)
            records, directory_bytes = fields[7], fields[8]
    if records > _MAX_RECORDS or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise _invalid(f"its directory claims {records} records and {directory_bytes} bytes")


def _stored_records(archive: zipfile.ZipFile, size_bytes: int) -> dict[str, zipfile.ZipInfo]:
    records = {record.filename: record for record in archive.infolist()}
    if len(records) != len(archive.infolist()):
        raise _invalid("it holds two records of one name")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
        raise _invalid("its records are compressed, which torch never does")
    if sum(record.file_size for record in records.values()) > size_bytes:
        raise _invalid("its records claim more bytes than it has")
    return records


def _invalid(what: str) -> Rejected:
    return Rejected(
        "pickle_invalid",
        f"adapter_model.bin is damaged or is something else: {what[:160]}. Save it as safetensors.",
    )
