"""A private store with room for plenty, a prefix to copy from, and storage that may hang."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loradrop.worker.store.deadline import Deadline
from loradrop.worker.store.revision_store import RevisionStore, StoreTimings
from tests.worker.sources import HungStorage

PLENTY = 1 << 30
SOON = StoreTimings(deadline=Deadline(base_seconds=0.3))
"""For what is to take too long."""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    return prefix


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "loradrop"


@pytest.fixture
def storage() -> Iterator[HungStorage]:
    """Storage under the prefix that may hang."""
    storage = HungStorage()
    yield storage
    storage.thaw()


@pytest.fixture
def store(place: Path, storage: HungStorage) -> RevisionStore:
    return RevisionStore(place, max_bytes=PLENTY, copy=storage.copy_adapter)


@pytest.fixture
def impatient(place: Path, storage: HungStorage) -> RevisionStore:
    """The same store, for which storage takes too long at once."""
    return RevisionStore(place, max_bytes=PLENTY, copy=storage.copy_adapter, timings=SOON)
