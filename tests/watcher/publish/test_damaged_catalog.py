"""A catalog that loses or garbles what it holds is published again, while readers keep what they have."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.errors import LeaseLost, LoradropError
from loradrop.catalog.store import Connection
from loradrop.watcher.publish.catalog_mirror import CatalogMirror
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.catalog.values import a_watcher, an_adapter, revision
from tests.watcher.running import PATIENCE_SECONDS, SOON, Catalog, watching

META, ADAPTERS, EVENTS = (f"loradrop:{{default}}:{name}" for name in ("meta", "adapters", "events"))
NAMES = {"one", "two", "three"}
DAMAGE: dict[str, Callable[["Redis[str]"], Awaitable[object]]] = {
    "records lost": lambda raw: raw.delete(ADAPTERS),
    "one record lost": lambda raw: raw.hdel(ADAPTERS, "two"),
    "events lost": lambda raw: raw.delete(EVENTS),
    "meta lost": lambda raw: raw.delete(META),
    "seq lost": lambda raw: raw.hdel(META, "seq"),
    "seq no number": lambda raw: raw.hset(META, "seq", "many"),
    "a record that does not decode": lambda raw: raw.hset(ADAPTERS, "one", "{"),
    "records of another shape": lambda raw: raw.hset(ADAPTERS, mapping=dict.fromkeys(NAMES, "[]")),
}


async def until_whole(catalog: Catalog) -> None:
    """Wait until the catalog is complete, and holds every name with a revision."""

    async def is_whole() -> bool:
        with suppress(LoradropError):
            listing = await catalog.reader.listing()
            served = {name for name, adapter in listing.adapters.items() if adapter.revision is not None}
            return listing.complete and not listing.unreadable and served == NAMES
        return False

    await wait_until(is_whole, timeout=PATIENCE_SECONDS, description="the catalog is whole")


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_catalog_is_published_again(what: str, connection: Connection, prefix: Path) -> None:
    for name in NAMES - {"three"}:
        write_adapter(prefix / name)
    async with watching(connection, prefix, **SOON, interval_seconds=0) as catalog:
        await catalog.until_served(NAMES - {"three"})
        await catalog.until_complete()
        await DAMAGE[what](connection.commands)
        publish_adapter(prefix, "three")
        await until_whole(catalog)


async def test_an_update_under_way_keeps_its_last_good_revision_though_its_record_is_lost(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        good = await catalog.until("sql", AdapterState.READY)
        (directory / "adapter_model.safetensors").write_bytes(b"")
        await catalog.until("sql", AdapterState.INCOMPLETE)
        await connection.commands.delete(ADAPTERS)
        torn = await catalog.until("sql", AdapterState.INCOMPLETE)
        assert (torn.revision, torn.rank) == (good.revision, good.rank)


@asynccontextmanager
async def updated_without_end(connection: Connection) -> AsyncIterator[CatalogMirror]:
    """Yield a leading watcher's catalog of NAMES, of which "one" gets new revisions all the time."""
    mirror = CatalogMirror(connection, owner="watcher-1")
    await mirror.lead()
    await mirror.write([an_adapter(name) for name in NAMES], [])

    async def update() -> None:
        for digit in itertools.cycle("bc"):
            await mirror.write([an_adapter("one", revision=revision(digit))], [])

    task = asyncio.create_task(update())
    try:
        yield mirror
        assert not task.done(), "it went on all the time"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_records_compared_while_changes_are_published_are_not_taken_for_damaged(
    connection: Connection,
) -> None:
    """Redis has the new record first; what the watcher remembers follows."""
    async with updated_without_end(connection) as mirror:
        for _ in range(200):
            await mirror.report(a_watcher())


async def test_an_overwritten_record_is_noticed_though_changes_are_published_without_end(
    connection: Connection,
) -> None:
    async with updated_without_end(connection) as mirror:
        await mirror.report(a_watcher())
        await connection.commands.hset(ADAPTERS, "two", "{")
        with pytest.raises(LeaseLost, match="'two' in Redis is damaged"):
            await mirror.report(a_watcher())
