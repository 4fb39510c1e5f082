"""A `.bin` has one face: what Python's reader and torch's could understand differently is refused."""

import io
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.pickle_archive import check_sums, read_archive
from tests.fuzz.targets import archive_of, program_of, saved

GOOD = saved({"a.lora_A.weight": torch.ones(4, 8)})
OTHER = saved({"b.lora_A.weight": torch.ones(64, 8)})
LOCAL, ENTRY, END_64, LOCATOR, END = (b"PK\3\4", b"PK\1\2", b"PK\6\6", b"PK\6\7", b"PK\5\6")


def code_of(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises((Rejected, Incomplete)) as caught:
        read_archive(file.fileno(), len(content))
        check_sums(file.fileno(), len(content))
    return caught.value.reason.code


def patched(at: bytes, offset: int, layout: str, value: int) -> bytes:
    """Return GOOD with one field of the last structure that begins with `at` changed."""
    content = bytearray(GOOD)
    struct.pack_into(layout, content, GOOD.rindex(at) + offset, value)
    return bytes(content)


def renamed(old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    return GOOD.replace(old, new)


def with_comment() -> bytes:
    return patched(END, 20, "<H", 3) + b"abc"


def with_comment_of_a_record() -> bytes:
    buffer = io.BytesIO(archive_of(program_of(GOOD)))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.getinfo("archive/version").comment = b"x"
        archive.writestr("archive/byteorder", b"little")
    return buffer.getvalue()


TWO_FACED = {
    "another archive in front": OTHER + GOOD,
    "bytes in front": b"\0" * 64 + GOOD,
    "a local header in front": GOOD[:64] + GOOD,
    "bytes behind": GOOD + b"\0",
    "another archive behind": GOOD + OTHER,
    "a comment": with_comment(),
    "a comment of a record": with_comment_of_a_record(),
    "bytes before the directory": GOOD[: GOOD.index(ENTRY)] + b"\0" * 4 + GOOD[GOOD.index(ENTRY) :],
    "the directory elsewhere": patched(END_64, 48, "<Q", 0),
    "another count": patched(END_64, 32, "<Q", 1),
    "counts that disagree": patched(END, 10, "<H", 1),
    "no second end record where the first refers to it": patched(LOCATOR, 0, "<L", 0),
    "a second end record elsewhere": patched(LOCATOR, 8, "<Q", 0),
    "several disks": patched(LOCATOR, 16, "<L", 2),
    "no disk": patched(LOCATOR, 16, "<L", 0),
    "a directory instead of a file": patched(ENTRY, 38, "<L", 0x10),
    "an encrypted record": patched(ENTRY, 8, "<H", 0x809),
    "a compressed record": patched(ENTRY, 10, "<H", 8),
    "another size": patched(ENTRY, 24, "<L", 39),
    "a checksum that does not hold": patched(ENTRY, 16, "<L", 1),
    "a record over another": patched(ENTRY, 42, "<L", 0),
    "a record behind the end": patched(ENTRY, 42, "<L", 1 << 30),
    "a version of the far future": patched(ENTRY, 6, "<H", 99),
    "a local header of another name": GOOD.replace(b"archive/version", b"archive/Version", 1),
    "a local header that is compressed": GOOD[:8] + b"\x08\x00" + GOOD[10:],
    "a name that differs in case only": renamed(b"archive/version", b"archive/VERSION"),
    "records of two archives": renamed(b"archive/data/0", b"brchive/data/0"),
    "what torch would run as a program": renamed(b"archive/.format_version", b"archive/constants.pkl00"),
    "a big-endian host's numbers": renamed(b"little", b"big   "),
}


@pytest.mark.parametrize("kind", TWO_FACED)
def test_what_has_two_faces_is_refused(kind: str, tmp_path: Path) -> None:
    assert TWO_FACED[kind] != GOOD
    assert code_of(TWO_FACED[kind], tmp_path) == "pickle_invalid"


class Sparse(io.FileIO):
    """A file in which zeros are left out, so that gigabytes of them take no space."""

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if len(view) > 1 << 16 and not any(view[:4096]):
            self.seek(len(view), os.SEEK_CUR)
            return len(view)
        return super().write(view)


@pytest.mark.parametrize("zeros", [1 << 20, (1 << 32) + 64], ids=["small", "more than 4 GiB"])
def test_what_torch_writes_is_accepted_however_large(zeros: int, tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    with blank.open("wb") as file:
        os.truncate(file.fileno(), zeros)
    storage = torch.UntypedStorage.from_file(str(blank), shared=True, nbytes=zeros)
    large = torch.tensor([], dtype=torch.uint8).set_(storage)  # type: ignore[call-overload]
    path = tmp_path / "adapter_model.bin"
    with Sparse(path, "w") as out:
        torch.save({"a": torch.ones(4, 8), "large": large, "b": torch.ones(8, 4)}, out)
    with path.open("rb") as file:
        tensors = read_archive(file.fileno(), path.stat().st_size)
    assert [(tensor.name, tensor.shape) for tensor in tensors] == [
        ("a", (4, 8)),
        ("large", (zeros,)),
        ("b", (8, 4)),
    ]
    loaded = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    assert [tuple(tensor.shape) for tensor in loaded.values()] == [tensor.shape for tensor in tensors]
