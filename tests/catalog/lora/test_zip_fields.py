"""Each field of a zip file's records is judged, and each limit is where it is said to be."""

import io
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from loradrop.catalog.lora.zip_directory import (
    Damaged,
    NotAZip,
    Record,
    Truncated,
    check_record,
    read_directory,
    read_record,
)
from tests.fuzz.targets import saved

MIB = 1 << 20
LOCAL, ENTRY, END_64, LOCATOR, END = (b"PK\3\4", b"PK\1\2", b"PK\6\6", b"PK\6\7", b"PK\5\6")


def plain(**records: bytes) -> bytes:
    """Return an archive without zip64 records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PLAIN = plain(one=b"first", two=b"second")
WIDE = saved({"a.lora_A.weight": torch.ones(4, 8)})


def directory(tmp_path: Path, content: bytes) -> dict[str, Record]:
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        return read_directory(file.fileno(), len(content))


def patched(content: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(layout, changed, at, value)
    assert changed != content
    return bytes(changed)


def test_records_are_found_where_they_stand(tmp_path: Path) -> None:
    records = directory(tmp_path, PLAIN)
    assert list(records) == ["one", "two"]
    with (tmp_path / "file").open("rb") as file:
        assert [read_record(file.fileno(), record) for record in records.values()] == [b"first", b"second"]
    assert len(directory(tmp_path, WIDE)) > 2


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB + 7])
def test_a_checksum_is_that_of_every_byte(tmp_path: Path, size: int) -> None:
    content = plain(one=os.urandom(size))
    records = directory(tmp_path, content)
    with (tmp_path / "file").open("r+b") as file:
        check_record(file.fileno(), records["one"])
        for at in {0, size - 1} if size else set():
            os.pwrite(file.fileno(), bytes([content[len("one") + 30 + at] ^ 1]), len("one") + 30 + at)
            for judge in (check_record, read_record):
                with pytest.raises(Damaged, match="checksum"):
                    judge(file.fileno(), records["one"])
            os.pwrite(file.fileno(), content, 0)


def test_a_record_that_became_shorter_is_damaged(tmp_path: Path) -> None:
    record = directory(tmp_path, PLAIN)["two"]
    with (tmp_path / "file").open("r+b") as file:
        file.truncate(record.begin + 2)
        for judge in (check_record, read_record):
            with pytest.raises(Damaged, match="ends early"):
                judge(file.fileno(), record)


def test_a_name_has_at_most_255_bytes(tmp_path: Path) -> None:
    assert list(directory(tmp_path, plain(**{"n" * 255: b""}))) == ["n" * 255]
    for name in ("n" * 256, "line\nline"):
        with pytest.raises(Damaged):
            directory(tmp_path, plain(**{name: b""}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", NotAZip),
        (b"PK", NotAZip),
        (b"not a zip file, but longer than the end of one", NotAZip),
        (LOCAL, Truncated),
        (PLAIN[:-1], Truncated),
        (END, NotAZip),
        (PLAIN + bytes(1), Damaged),
        (PLAIN + bytes(65_536), Damaged),
        (PLAIN + bytes(65_537), Truncated),
        (bytes(1) + PLAIN[-22:] + bytes(1), Damaged),
    ],
)
def test_a_file_without_its_end_is_told_from_one_with_more_behind_it(
    tmp_path: Path, content: bytes, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        directory(tmp_path, content)


def claiming(tmp_path: Path, *, records: int, length: int) -> str:
    """Return what is said of a file of zeros whose end claims these numbers."""
    end_64 = struct.pack("<4sQ2H2L4Q", END_64, 44, 45, 45, 0, 0, records, records, length, 0)
    locator = struct.pack("<4sLQL", LOCATOR, 0, length, 1)
    narrow = min(records, 0xFFFF)
    end = struct.pack("<4s4H2LH", END, 0, 0, narrow, narrow, length, 0, 0)
    with pytest.raises(Damaged) as damaged:
        directory(tmp_path, bytes(length) + end_64 + locator + end)
    return str(damaged.value)


def test_a_directory_has_at_most_16_mib_and_100_000_records(tmp_path: Path) -> None:
    assert "claims" not in claiming(tmp_path, records=1, length=16 * MIB)
    assert "claims" in claiming(tmp_path, records=1, length=16 * MIB + 1)
    assert "claims" not in claiming(tmp_path, records=100_000, length=100)
    assert "claims" in claiming(tmp_path, records=100_001, length=100)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (4, "<H", 1),  # disk
        (6, "<H", 1),  # disk of the directory
        (8, "<H", 1),  # records on this disk
        (10, "<H", 1),  # records
        (12, "<L", 7),  # length of the directory
        (16, "<L", 7),  # its offset
        (10, "<H", 0xFFFF),
        (12, "<L", 0xFFFFFFFF),
        (16, "<L", 0xFFFFFFFF),
    ],
)
@pytest.mark.parametrize("content", [PLAIN, WIDE], ids=["plain", "zip64"])
def test_a_field_of_the_end_that_differs_is_damage(
    tmp_path: Path, content: bytes, offset: int, layout: str, value: int
) -> None:
    with pytest.raises(Damaged):
        directory(tmp_path, patched(content, content.rindex(END) + offset, layout, value))


@pytest.mark.parametrize(
    ("signature", "offset", "layout", "value"),
    [
        (LOCATOR, 4, "<L", 1),  # disk
        (LOCATOR, 8, "<Q", 1),  # offset of the second end record
        (LOCATOR, 16, "<L", 2),  # disks
        (END_64, 0, "<L", 0),
        (END_64, 4, "<Q", 45),  # its size
        (END_64, 16, "<L", 1),  # disk
        (END_64, 20, "<L", 1),  # disk of the directory
        (END_64, 24, "<Q", 1),  # records on this disk
        (END_64, 40, "<Q", 1),  # length of the directory
        (END_64, 48, "<Q", 1),  # its offset
        (ENTRY, 0, "<L", 0),
        (ENTRY, 20, "<L", 1),  # packed size
        (ENTRY, 28, "<H", 0),  # length of the name
        (ENTRY, 30, "<H", 1),  # length of the extra fields
        (ENTRY, 32, "<H", 1),  # length of the comment
        (ENTRY, 34, "<H", 1),  # disk
        (ENTRY, 38, "<L", 1),  # DOS attributes
        (LOCAL, 0, "<L", 0),
        (LOCAL, 6, "<H", 0x800),  # flags
        (LOCAL, 8, "<H", 8),  # method
        (LOCAL, 26, "<H", 7),  # length of the name
    ],
)
def test_a_field_of_another_record_that_differs_is_damage(
    tmp_path: Path, signature: bytes, offset: int, layout: str, value: int
) -> None:
    with pytest.raises(Damaged):
        directory(tmp_path, patched(WIDE, WIDE.rindex(signature) + offset, layout, value))


@pytest.mark.parametrize("offset", [14, 18, 22])
def test_sizes_and_checksum_of_a_local_header_are_those_of_the_directory(tmp_path: Path, offset: int) -> None:
    with pytest.raises(Damaged, match="local header"):
        directory(tmp_path, patched(PLAIN, offset, "<L", 77))


def test_the_highest_version_is_that_of_zip64_and_unix_attributes_say_nothing(tmp_path: Path) -> None:
    at = PLAIN.index(ENTRY)
    assert directory(tmp_path, patched(PLAIN, at + 6, "<H", 45))
    assert directory(tmp_path, patched(PLAIN, at + 38, "<L", 0x81A40000))
    with pytest.raises(Damaged):
        directory(tmp_path, patched(PLAIN, at + 6, "<H", 46))


def test_a_local_header_without_sizes_says_that_they_follow(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="local header"):
        directory(tmp_path, PLAIN[:14] + bytes(12) + PLAIN[26:])


@pytest.mark.parametrize(("count", "why"), [(1, "holds more"), (3, "ends early")])
def test_a_directory_holds_as_many_records_as_its_end_says(tmp_path: Path, count: int, why: str) -> None:
    at = PLAIN.rindex(END)
    content = patched(patched(PLAIN, at + 8, "<H", count), at + 10, "<H", count)
    with pytest.raises(Damaged, match=why):
        directory(tmp_path, content)


def test_fields_beside_those_of_zip64_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("one")
    info.extra = struct.pack("<2H", 0x9901, 2) + b"ab"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, b"first")
    with pytest.raises(Damaged, match="fields torch does not write"):
        directory(tmp_path, buffer.getvalue())


@pytest.mark.parametrize("offset", [20, 24, 42])
def test_a_size_that_refers_to_zip64_needs_its_field(tmp_path: Path, offset: int) -> None:
    at = PLAIN.index(ENTRY)
    with pytest.raises(Damaged, match="fields torch does not write"):
        directory(tmp_path, patched(PLAIN, at + offset, "<L", 0xFFFFFFFF))
