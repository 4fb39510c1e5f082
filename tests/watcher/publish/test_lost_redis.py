"""Whatever happens to Redis, the catalog ends up right."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.state.removal import RemovalRule
from testkit.adapters import publish_adapter, write_adapter
from testkit.servers import ValkeyServer, valkey
from tests.watcher.running import SOON, fence, watching


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of this test alone, to be killed and frozen."""
    directory = tmp_path / "valkey"
    directory.mkdir()
    with valkey(directory) as server:
        yield server


@pytest.fixture
async def own(server: ValkeyServer) -> AsyncIterator[Connection]:
    async with Connection(server.url) as connection:
        yield connection


async def test_an_emptied_redis_is_filled_again_under_a_new_epoch(
    connection: Connection, prefix: Path
) -> None:
    for name in ("one", "two"):
        write_adapter(prefix / name)
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"one", "two"})
        before = await catalog.reader.listing()
        await connection.commands.flushall()
        await catalog.until_served({"one", "two"})
        after = await catalog.reader.listing()
        assert after.epoch != before.epoch
        assert {n: a.revision for n, a in after.adapters.items()} == {
            n: a.revision for n, a in before.adapters.items()
        }


async def test_an_emptied_redis_is_not_said_to_be_complete_before_everything_is_in_it_again(
    connection: Connection, prefix: Path
) -> None:
    names = {f"a{number}" for number in range(1_100)}  # more than are written in one turn
    for name in names:
        write_adapter(prefix / name)
    keys, commands = connection.keys, connection.commands
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served(names)
        for _ in range(5):
            await catalog.until_complete()
            await commands.flushall()
            complete, held = None, 0
            while complete != "1":
                async with commands.pipeline(transaction=True) as pipeline:
                    pipeline.hget(keys.meta, "complete")
                    pipeline.hlen(keys.adapters)
                    complete, held = await pipeline.execute()
            assert held == len(names)


async def test_an_update_under_way_keeps_its_last_good_revision_even_where_redis_forgot_it(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        good = await catalog.until("sql", AdapterState.READY)
        (directory / "adapter_model.safetensors").write_bytes(b"")
        await catalog.until("sql", AdapterState.INCOMPLETE)
        await connection.commands.flushall()
        torn = await catalog.until("sql", AdapterState.INCOMPLETE)
        assert (torn.revision, torn.rank) == (good.revision, good.rank)
        shutil.rmtree(directory)
        await catalog.until_gone("sql")


async def test_a_catalog_is_complete_again_though_a_name_only_redis_knew_is_gone_from_both(
    connection: Connection, prefix: Path
) -> None:
    for name in ("kept", "gone"):
        write_adapter(prefix / name)
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"kept", "gone"})
    shutil.rmtree(prefix / "gone")
    patient: dict[str, Any] = SOON | {"removal": RemovalRule(grace_seconds=3), "interval_seconds": 0.2}
    async with watching(connection, prefix, **patient) as catalog:
        await catalog.until_scanned()
        await fence(catalog, prefix)
        await connection.commands.flushall()
        await catalog.until_complete()
        await catalog.until_gone("gone")
        assert set(await catalog.adapters()) == {"kept", "fence"}


def empty(prefix: Path, away: Path) -> None:
    away.mkdir()
    for adapter in prefix.iterdir():
        adapter.rename(away / adapter.name)


def replace(prefix: Path, away: Path) -> None:
    prefix.rename(away)
    prefix.mkdir()


@pytest.mark.parametrize(("vanish", "code"), [(empty, "mass_removal"), (replace, "prefix_away")])
async def test_of_a_redis_emptied_while_removals_are_held_back_nothing_is_lost(
    vanish: Callable[[Path, Path], None], code: str, connection: Connection, prefix: Path
) -> None:
    names = {f"a{number}" for number in range(6)}
    for name in names:
        write_adapter(prefix / name)
    patient: dict[str, Any] = SOON | {"removal": RemovalRule(grace_seconds=0.2, mass_grace_seconds=60)}
    async with watching(connection, prefix, **patient) as catalog:
        await catalog.until_served(names)
        (prefix / "a0" / "adapter_model.safetensors").write_bytes(b"")
        await catalog.until("a0", AdapterState.INCOMPLETE)
        away = prefix.with_name("away")
        vanish(prefix, away)
        await catalog.until_degraded(code)
        await connection.commands.flushall()
        await catalog.until_served(names)
        assert not (await catalog.reader.listing()).complete
        prefix.rmdir()
        away.rename(prefix)
        await catalog.until_complete()
        assert {name for name, a in (await catalog.adapters()).items() if a.revision is not None} == names


async def test_changes_made_while_redis_is_dead_are_published_when_it_is_back(
    server: ValkeyServer, own: Connection, prefix: Path
) -> None:
    for name in ("keep", "remove"):
        write_adapter(prefix / name)
    async with watching(own, prefix, **SOON) as catalog:
        await catalog.until_served({"keep", "remove"})
        server.kill()
        publish_adapter(prefix, "add")
        shutil.rmtree(prefix / "remove")
        server.start()
        await catalog.until_served({"keep", "add"})


async def test_a_redis_that_is_there_later_than_the_watcher_is_waited_for(
    server: ValkeyServer, own: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    server.kill()
    made = asyncio.create_task(_served_once(own, prefix))
    await asyncio.sleep(0)
    server.start()
    await made


async def _served_once(own: Connection, prefix: Path) -> None:
    async with watching(own, prefix, **SOON) as catalog:
        await catalog.until_served({"sql"})
