"""What a power cut leaves: bytes are on disk before the name that promises them."""

import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from loradrop.worker.store.copying import digest_copy
from loradrop.worker.store.revision_store import RevisionStore
from tests.worker.sources import published
from tests.worker.store.conftest import PLENTY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class _SystemCalls:
    """The calls of fsync and rename, in order: what was synced, and how many bytes it had by then."""

    def __init__(self, place: Path) -> None:
        self.calls: list[str] = []
        self._place = place

    def __call__(self, _frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or getattr(function, "__module__", None) != "posix":
            return
        if function.__name__ in {"rename", "replace"}:
            self.calls.append("rename")
        if function.__name__ == "fsync":
            self.calls.append(f"sync {self._open()}")

    def _open(self) -> str:
        """Return the file below the store that is open now, or else the innermost directory."""
        names = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                path, status = Path(link.readlink()), link.stat()
            except FileNotFoundError:
                continue  # what listed them
            if path.is_relative_to(self._place) and path.name != ".pin":
                parts = path.relative_to(self._place).parts
                is_file = stat.S_ISREG(status.st_mode)
                size = f" {status.st_size}" if is_file else ""
                names.append((is_file, parts[0] == "revisions", parts[-1] if is_file else parts[0], size))
        _, _, name, size = max(names)
        return name + size


@contextmanager
def recorded(place: Path) -> Iterator[list[str]]:
    """Record the system calls of the threads that are started in the block."""
    recorder = _SystemCalls(place)
    threading.setprofile(recorder)
    try:
        yield recorder.calls
    finally:
        threading.setprofile(None)


async def test_the_bytes_are_on_disk_before_the_revision_shows_and_its_name_before_it_is_used(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    config, weights = (name.stat().st_size for name in sorted((prefix / "sql").iterdir()))
    with recorded(place) as calls:
        (await store.obtain(source)).release()
    assert sorted(calls[:2]) == [
        f"sync adapter_config.json {config}",
        f"sync adapter_model.safetensors {weights}",
    ]
    assert calls[2:] == ["sync incoming", "rename", "sync revisions"]


async def test_what_is_repaired_in_place_is_on_disk_first_too(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    in_use = await store.obtain(source)
    (in_use.directory / "adapter_config.json").write_text("{}")
    other = RevisionStore(place, max_bytes=PLENTY)
    with recorded(place) as calls:
        (await other.obtain(source)).release()
    assert digest_copy(in_use.directory) == source.revision
    first_rename = calls.index("rename")
    assert len(calls[:first_rename]) == 3, "two files and their directory"
    assert all(call.startswith("sync ") for call in calls[:first_rename])
    assert calls[-1].startswith("sync "), "the names are on disk before they are used"
