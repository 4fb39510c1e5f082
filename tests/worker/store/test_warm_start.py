"""A worker that starts while Redis is away offers what it served before, as far as it can prove it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loradrop.catalog.adapter import Adapter
from loradrop.worker.store.revision_store import RevisionStore
from loradrop.worker.store.warm_start import WarmStart
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter, revision
from tests.worker.sources import published


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
async def keeping(warm_start: WarmStart, served: Sequence[Adapter] | None) -> AsyncIterator[None]:
    task = asyncio.create_task(warm_start.keep(lambda: served))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def keep(warm_start: WarmStart, served: Sequence[Adapter]) -> None:
    async with keeping(warm_start, served):
        await wait_until(
            lambda: set(warm_start.read()) == {adapter.name for adapter in served},
            timeout=10,
            description="what is served is kept",
        )


async def test_what_was_served_is_there_for_the_next_start(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    await keep(WarmStart(place, store, catalog="this catalog", interval_seconds=0.01), [sql])
    assert WarmStart(place, store, catalog="this catalog", interval_seconds=0.01).read() == {
        "sql": dataclasses.replace(sql, seq=0)
    }
    assert WarmStart(place, store, catalog="another catalog").read() == {}


async def test_the_place_it_is_kept_in_is_made(store: RevisionStore, place: Path, sql: Adapter) -> None:
    await keep(WarmStart(place / "of" / "one", store, catalog="this catalog", interval_seconds=0.01), [sql])


async def test_an_adapter_that_is_not_in_the_store_is_not_kept(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    warm_start = WarmStart(place, store, catalog="this catalog", interval_seconds=0.01)
    never_asked_for = an_adapter("poet", revision=revision(7))
    async with keeping(warm_start, [sql, never_asked_for]):
        await wait_until(lambda: bool(warm_start.read()), timeout=10, description="something is kept")
    assert set(warm_start.read()) == {"sql"}


async def test_one_that_has_left_the_store_since_is_not_offered(
    store: RevisionStore, place: Path, tmp_path: Path, sql: Adapter
) -> None:
    await keep(WarmStart(place, store, catalog="this catalog", interval_seconds=0.01), [sql])
    empty = RevisionStore(tmp_path / "another cache", max_bytes=1)
    assert WarmStart(place, empty, catalog="this catalog").read() == {}


async def test_what_is_removed_is_not_kept_any_longer(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    warm_start = WarmStart(place, store, catalog="this catalog", interval_seconds=0.01)
    await keep(warm_start, [sql])
    await keep(warm_start, [])


async def test_while_nothing_is_known_what_was_kept_stays(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    warm_start = WarmStart(place, store, catalog="this catalog", interval_seconds=0.01)
    await keep(warm_start, [sql])
    looks: list[None] = []

    def served() -> None:
        looks.append(None)

    task = asyncio.create_task(warm_start.keep(served))
    await wait_until(lambda: len(looks) > 1, timeout=10, description="it has looked twice")
    task.cancel()
    assert set(warm_start.read()) == {"sql"}


async def test_a_damaged_file_is_told_and_nothing_is_offered(
    store: RevisionStore, place: Path, sql: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    warm_start = WarmStart(place, store, catalog="this catalog", interval_seconds=0.01)
    await keep(warm_start, [sql])
    [path] = place.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    assert warm_start.read() == {}
    assert f"what was served cannot be read path={path}" in caplog.text


async def test_a_disk_that_takes_nothing_is_told_and_tried_again(
    store: RevisionStore, place: Path, sql: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("in the way of the directory")
    warm_start = WarmStart(place, store, catalog="this catalog", interval_seconds=0.01)
    async with keeping(warm_start, [sql]):
        await wait_until(
            lambda: "what is served cannot be kept" in caplog.text, timeout=10, description="it is told"
        )
        place.unlink()
        await wait_until(lambda: set(warm_start.read()) == {"sql"}, timeout=10, description="it is kept")


async def test_what_has_not_changed_is_not_written_again(
    store: RevisionStore, place: Path, sql: Adapter
) -> None:
    warm_start = WarmStart(place, store, catalog="this catalog", interval_seconds=0.01)
    await keep(warm_start, [sql])
    [path] = place.iterdir()
    written = path.stat().st_ino
    looks: list[None] = []

    def served() -> list[Adapter]:
        looks.append(None)
        return [sql]

    task = asyncio.create_task(warm_start.keep(served))
    await wait_until(lambda: len(looks) > 3, timeout=10, description="it has looked several times")
    task.cancel()
    assert path.stat().st_ino == written


async def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(
    store: RevisionStore, place: Path, sql: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    await keep(WarmStart(place, store, catalog="this catalog", interval_seconds=0.01), [sql])
    [path] = place.iterdir()
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    async with keeping(WarmStart(place, store, catalog="this catalog", interval_seconds=0.01), [sql]):
        await wait_until(
            lambda: caplog.text.count("cannot be kept") > 1, timeout=10, description="it is told"
        )
    assert list(place.iterdir()) == [path]
