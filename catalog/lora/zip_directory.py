"""The directory of a zip file, read so strictly that every reader understands the file alike.

A zip file can have two faces: Python's reader tolerates bytes in front and looks for the directory just
before its end record, torch's (miniz) goes where the end record points. What the one has checked is then
not what the other loads. So only what torch writes is accepted, and all of it is compared:

    [local header, name, extra | data | (data descriptor)]...  directory  (zip64 end, locator)  end

The first local header stands at byte 0, the directory ends where the end records begin, the end record is
the last thing in the file. Nothing is compressed, encrypted, commented, named twice or overlapping; every
local header says what the directory says. A file that is none of this is refused, not interpreted.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from loradrop.catalog.lora.open_files import read_at

MAX_RECORDS = 100_000
_MAX_DIRECTORY_BYTES = 16 << 20
_MAX_NAME_BYTES = 255
_CHUNK_BYTES = 1 << 20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA = struct.Struct("<2H")

_MAX_COMMENT_BYTES = 1 << 16
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800
_ZIP64 = 1
_NEWEST = 45
"""The version of the format that has zip64."""

_DOS_ATTRIBUTES = 0xFFFF


class NotAZip(Exception):
    """No end record, and no beginning of a zip file either."""


class Truncated(Exception):
    """The beginning of a zip file, and no end yet."""


class Damaged(ValueError):
    """A zip file that readers may understand differently; says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """One stored file: `begin` is where its bytes stand in the archive."""

    name: str
    begin: int
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record as the directory has it. `raw_name` is compared with the local header's."""

    raw_name: bytes
    flags: int
    crc32: int
    size_bytes: int
    offset: int


def read_directory(fd: int, size_bytes: int) -> dict[str, Record]:
    """Return the records of the archive open at `fd`, in the directory's order.

    Raises NotAZip, Truncated, Damaged, and OSError.
    """
    count, length, offset = _find_directory(fd, size_bytes)
    if count > MAX_RECORDS or length > _MAX_DIRECTORY_BYTES:
        raise Damaged(f"its directory claims {count} records and {length} bytes")
    entries = list(_entries(_exactly(fd, length, offset), count))
    records = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        record = _located(fd, entry)
        if entry.offset < end or (end == 0 and entry.offset != 0):
            raise Damaged("its records overlap, or do not begin at its first byte")
        end = record.begin + record.size_bytes
        records[entry.raw_name] = record
    if end > offset:
        raise Damaged("its records overlap its directory")
    if len(records) != count:
        raise Damaged("it holds two records of one name")
    return {record.name: record for record in (records[entry.raw_name] for entry in entries)}


def read_record(fd: int, record: Record) -> bytes:
    """Return all bytes of `record`; raises Damaged where its checksum does not hold, and OSError."""
    content = _exactly(fd, record.size_bytes, record.begin)
    if zlib.crc32(content) != record.crc32:
        raise Damaged(f"the checksum of {record.name[:80]!r} does not hold")
    return content


def check_record(fd: int, record: Record) -> None:
    """Return where the checksum of `record` holds; raises Damaged, and OSError."""
    crc32, at, end = 0, record.begin, record.begin + record.size_bytes
    while at < end:
        chunk = _exactly(fd, min(_CHUNK_BYTES, end - at), at)
        crc32 = zlib.crc32(chunk, crc32)
        at += len(chunk)
    if crc32 != record.crc32:
        raise Damaged(f"the checksum of {record.name[:80]!r} does not hold")


def _find_directory(fd: int, size_bytes: int) -> tuple[int, int, int]:
    """Return how many records the directory holds, its length and where it begins."""
    at = size_bytes - _END.size
    tail = os.pread(fd, _END.size, at) if at >= 0 else b""
    if tail[:4] != b"PK\5\6" or len(tail) != _END.size:
        raise _without_end(fd, size_bytes)
    _, disk, first_disk, here, count, length, offset, comment = _END.unpack(tail)
    if disk or first_disk or here != count or comment:
        raise Damaged("it has a comment, or is one of several parts")
    wide = _read_end_64(fd, at - _LOCATOR.size)
    end = at
    if wide is None:
        if count == _FULL_16 or _FULL_32 in (length, offset):
            raise Damaged("its end record refers to another one that is not there")
    else:
        full = (_FULL_16, _FULL_32, _FULL_32)
        if (count, length, offset) != tuple(map(min, wide, full)):
            raise Damaged("its two end records disagree")
        count, length, offset = wide
        end = at - _LOCATOR.size - _END_64.size
    if offset + length != end:
        raise Damaged("its directory does not stand before its end")
    return count, length, offset


def _without_end(fd: int, size_bytes: int) -> Exception:
    start = max(0, size_bytes - _END.size - _MAX_COMMENT_BYTES)
    tail = os.pread(fd, size_bytes - start, start)
    if 0 <= tail.find(b"PK\5\6") <= len(tail) - _END.size:
        return Damaged("something stands behind its end")
    return Truncated() if os.pread(fd, 4, 0) == b"PK\3\4" else NotAZip()


def _read_end_64(fd: int, at: int) -> tuple[int, int, int] | None:
    """Return count, length and offset from the zip64 records, where their locator stands at `at`."""
    locator = os.pread(fd, _LOCATOR.size, at) if at >= 0 else b""
    if locator[:4] != b"PK\6\7":
        return None
    _, disk, offset, disks = _LOCATOR.unpack(locator)
    if disk or disks != 1 or offset != at - _END_64.size:
        raise Damaged("its second end record is not where it should be")
    signature, size, _, _, disk, first_disk, here, count, length, begin = _END_64.unpack(
        _exactly(fd, _END_64.size, offset)
    )
    if signature != b"PK\6\6" or size != _END_64.size - 12 or disk or first_disk or here != count:
        raise Damaged("its second end record is damaged")
    return count, length, begin


def _entries(directory: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(directory):
            raise Damaged("its directory ends early")
        fields = _ENTRY.unpack_from(directory, at)
        signature, _, version, flags, method, _, _, crc32, packed, size, names, extras = fields[:12]
        comment, disk, _, attributes, offset = fields[12:]
        at += _ENTRY.size
        name, extra = directory[at : at + names], directory[at + names : at + names + extras]
        at += names + extras
        if signature != b"PK\1\2" or not name or names > _MAX_NAME_BYTES or at > len(directory):
            raise Damaged("its directory is damaged")
        if comment or disk or version > _NEWEST or flags & ~(_SIZES_FOLLOW | _UTF8):
            raise Damaged("its records have comments, or are encrypted")
        if attributes & _DOS_ATTRIBUTES:  # miniz would take the record for a directory, and read nothing
            raise Damaged("its records are not plain files")
        size, packed, offset = _widened(extra, size, packed, offset)
        if method or size != packed:
            raise Damaged("its records are compressed, which torch never does")
        yield _Entry(name, flags, crc32, size, offset)
    if at != len(directory):
        raise Damaged("its directory holds more than its records")


def _widened(extra: bytes, *narrow: int) -> list[int]:
    """Return sizes and offset with what a zip64 field says instead of those that are full."""
    missing = narrow.count(_FULL_32)
    if len(extra) != (_EXTRA.size + 8 * missing if missing else 0):
        raise Damaged("its records have fields torch does not write")
    if not missing:
        return list(narrow)
    if _EXTRA.unpack_from(extra) != (_ZIP64, 8 * missing):
        raise Damaged("its records have fields torch does not write")
    wide = iter(struct.unpack_from(f"<{missing}Q", extra, _EXTRA.size))
    return [next(wide) if value == _FULL_32 else value for value in narrow]


def _located(fd: int, entry: _Entry) -> Record:
    """Return the record of `entry`, whose local header must say the same."""
    raw = os.pread(fd, _LOCAL.size + _MAX_NAME_BYTES, entry.offset)
    if len(raw) < _LOCAL.size:
        raise Damaged("its directory points behind its end")
    signature, _, flags, method, _, _, crc32, packed, size, names, extras = _LOCAL.unpack_from(raw)
    name = raw[_LOCAL.size : _LOCAL.size + names]
    if signature != b"PK\3\4" or method or flags != entry.flags or name != entry.raw_name:
        raise Damaged("a local header disagrees with the directory")
    later = flags & _SIZES_FOLLOW and not (crc32 or size or packed)
    narrow = min(entry.size_bytes, _FULL_32)
    if not later and (crc32, size, packed) != (entry.crc32, narrow, narrow):
        raise Damaged("a local header disagrees with the directory")
    begin = entry.offset + _LOCAL.size + names + extras
    return Record(_text(entry.raw_name), begin, entry.size_bytes, entry.crc32)


def _text(name: bytes) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise Damaged("the name of a record is not UTF-8") from error
    if not text.isprintable():
        raise Damaged("the name of a record holds control characters")
    return text


def _exactly(fd: int, length: int, offset: int) -> bytes:
    """Return `length` bytes from `offset`; raises Damaged where there are fewer."""
    found = read_at(fd, length, offset)
    if len(found) != length:
        raise Damaged("it ends early")
    return found
