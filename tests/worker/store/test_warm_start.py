"""A worker that starts while Redis is away offers what it served before, as far as it can prove it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loradrop.catalog.adapter import Adapter
from loradrop.worker.store.revision_store import RevisionStore
from loradrop.worker.store.warm_start import LastKnown
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter, revision
from tests.worker.sources import published


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loradrop.worker.store.warm_start._PAUSE_SECONDS", 0.01)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "last-known"


@pytest.fixture
def store(tmp_path: Path) -> RevisionStore:
    return RevisionStore(tmp_path / "cache", max_bytes=1 << 30)


@pytest.fixture
async def sql(store: RevisionStore, tmp_path: Path) -> Adapter:
    """An adapter whose bytes are in the store."""
    pinned = await store.obtain(published(tmp_path / "loras"))
    pinned.release()
    return an_adapter("sql", revision=pinned.revision)


@asynccontextmanager
async def keeping(last_known: LastKnown, served: Sequence[Adapter] | None) -> AsyncIterator[None]:
    task = asyncio.create_task(last_known.keep(lambda: served))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def keep(last_known: LastKnown, served: Sequence[Adapter]) -> None:
    async with keeping(last_known, served):
        await wait_until(
            lambda: set(last_known.read()) == {adapter.name for adapter in served},
            timeout=10,
            description="what is served is kept",
        )


async def test_what_was_served_is_there_for_the_next_start(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    await keep(LastKnown(place, store, of="this catalog"), [sql])
    assert LastKnown(place, store, of="this catalog").read() == {"sql": dataclasses.replace(sql, seq=0)}
    assert LastKnown(place, store, of="another catalog").read() == {}


async def test_an_adapter_that_is_not_in_the_store_is_not_kept(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    last_known = LastKnown(place, store, of="this catalog")
    never_asked_for = an_adapter("poet", revision=revision(7))
    async with keeping(last_known, [sql, never_asked_for]):
        await wait_until(lambda: bool(last_known.read()), timeout=10, description="something is kept")
    assert set(last_known.read()) == {"sql"}


async def test_one_that_has_left_the_store_since_is_not_offered(
    store: RevisionStore, place: Path, tmp_path: Path, sql: Adapter
) -> None:
    await keep(LastKnown(place, store, of="this catalog"), [sql])
    empty = RevisionStore(tmp_path / "another cache", max_bytes=1)
    assert LastKnown(place, empty, of="this catalog").read() == {}


async def test_what_is_removed_is_not_kept_any_longer(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    last_known = LastKnown(place, store, of="this catalog")
    await keep(last_known, [sql])
    await keep(last_known, [])


async def test_while_nothing_is_known_what_was_kept_stays(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    last_known = LastKnown(place, store, of="this catalog")
    await keep(last_known, [sql])
    looks: list[None] = []

    def served() -> None:
        looks.append(None)

    task = asyncio.create_task(last_known.keep(served))
    await wait_until(lambda: len(looks) > 1, timeout=10, description="it has looked twice")
    task.cancel()
    assert set(last_known.read()) == {"sql"}


async def test_a_damaged_file_is_told_and_nothing_is_offered(
    store: RevisionStore, place: Path, sql: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    last_known = LastKnown(place, store, of="this catalog")
    await keep(last_known, [sql])
    [path] = place.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    assert last_known.read() == {}
    assert f"what was served cannot be read path={path}" in caplog.text


async def test_a_disk_that_takes_nothing_is_told_and_tried_again(
    store: RevisionStore, place: Path, sql: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("in the way of the directory")
    last_known = LastKnown(place, store, of="this catalog")
    async with keeping(last_known, [sql]):
        await wait_until(
            lambda: "what is served cannot be kept" in caplog.text, timeout=10, description="it is told"
        )
        place.unlink()
        await wait_until(lambda: set(last_known.read()) == {"sql"}, timeout=10, description="it is kept")
