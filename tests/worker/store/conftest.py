"""A private store with room for plenty, a prefix to copy from, and storage that may hang."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loradrop.worker.store.revision_store import RevisionStore
from tests.worker.sources import HungStorage, hung_storage

PLENTY = 1 << 30


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    return prefix


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "loradrop"


@pytest.fixture
def store(place: Path) -> RevisionStore:
    return RevisionStore(place, max_bytes=PLENTY)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[HungStorage]:
    """Storage that may hang, and patience that ends soon; what is to go well asks for `patience` first."""
    monkeypatch.setattr("loradrop.worker.store.deadline_threads._PATIENCE_SECONDS", 0.05)
    with hung_storage(monkeypatch) as storage:
        yield storage


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give storage all the time it needs from now on."""
    return lambda: monkeypatch.setattr("loradrop.worker.store.deadline_threads._PATIENCE_SECONDS", 20.0)
