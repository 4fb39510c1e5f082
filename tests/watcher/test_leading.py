"""One watcher publishes; whatever happens to it, to others or to Redis, the catalog ends up right."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.adapter import AdapterState
from catalog.events import EventType
from catalog.status import WatcherMode, WatcherStatus
from catalog.store import Connection, Publisher
from tests.adapters import publish_adapter, write_adapter
from tests.servers import ValkeyServer, valkey
from tests.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, Catalog, watching
from watcher.removal import RemovalRule
from watcher.settle import SettleRule

ADDED, MODIFIED, DELETED = EventType.ADDED, EventType.MODIFIED, EventType.DELETED
SOON = {
    "settle": SettleRule(settle_seconds=0.2),
    "removal": RemovalRule(grace_seconds=0.2, mass_grace_seconds=0.5),
}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "prefix"
    path.mkdir()
    return path


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


@contextmanager
def process(prefix: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A watcher as a process of its own."""
    flags = ["--lora-dir-prefix", str(prefix), "--redis-url", url, "--lora-settle", "0.2"]
    child = subprocess.Popen([sys.executable, "-m", "watcher", *flags], stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


async def test_a_restarted_watcher_publishes_only_what_changed_meanwhile(
    connection: Connection, prefix: Path
) -> None:
    for name in ("keep", "change", "remove"):
        write_adapter(prefix / name)
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"keep", "change", "remove"})
    before = len(await catalog.served_events())
    write_adapter(prefix / "change", seed=2)
    write_adapter(prefix / "add")
    shutil.rmtree(prefix / "remove")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"keep", "change", "add"})

        async def is_told() -> bool:
            return len(await catalog.served_events()) >= before + 3

        await wait_until(is_told, timeout=PATIENCE_SECONDS, description="three changes are told")
    assert set((await catalog.served_events())[before:]) == {
        (ADDED, "add"),
        (MODIFIED, "change"),
        (DELETED, "remove"),
    }


async def test_after_a_restart_a_half_written_update_keeps_the_last_good_revision(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        good = await catalog.until("sql", AdapterState.READY)
    (directory / "adapter_model.safetensors").write_bytes(b"")
    async with watching(connection, prefix, **SOON) as catalog:
        torn = await catalog.until("sql", AdapterState.INCOMPLETE)
    assert (torn.revision, torn.rank, torn.discovered_at) == (good.revision, good.rank, good.discovered_at)


async def test_the_lease_is_given_back_at_the_end(connection: Connection, prefix: Path) -> None:
    async with watching(connection, prefix) as catalog:
        assert await catalog.status() is not None
    assert await catalog.status() is None


async def test_a_second_watcher_stands_by_and_takes_over(
    connection: Connection, prefix: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Publisher(connection, owner="another-host:1:1")
    await first.lead()
    await first.report(
        WatcherStatus(
            owner="another-host:1:1", prefix="/p", mode=WatcherMode.RESCAN, heartbeat_at=datetime.now(UTC)
        )
    )
    write_adapter(prefix / "sql")
    with caplog.at_level(logging.INFO):
        async with watching(connection, prefix, **SOON) as catalog:
            await wait_until(
                lambda: "Watcher stands by owner=another-host:1:1" in caplog.text,
                timeout=PATIENCE_SECONDS,
                description="it stands by",
            )
            assert await catalog.adapters() == {}
            await first.resign()
            await catalog.until("sql", AdapterState.READY)


async def test_the_lease_of_a_killed_watcher_on_this_host_is_taken_at_once(
    connection: Connection, prefix: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_adapter(prefix / "sql")
    catalog = Catalog(connection)
    with process(prefix, connection.url) as child:
        await catalog.until("sql", AdapterState.READY)
        child.kill()
        child.wait()
        status = await catalog.status()
        assert status is not None
    with caplog.at_level(logging.INFO):
        async with watching(connection, prefix, **SOON):
            await wait_until(
                lambda: f"Lease of a dead watcher is taken over owner={status.owner}" in caplog.text,
                timeout=PATIENCE_SECONDS,
                description="the lease is taken over",
            )


async def test_a_watcher_that_lost_its_lease_publishes_nothing_and_stands_by(
    connection: Connection, prefix: Path
) -> None:
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_scanned()
        await connection.commands.delete(connection.keys.watcher)
        other = Publisher(connection, owner="another-host:1:1")
        await other.lead()
        publish_adapter(prefix, "sql")

        async def is_standing_by() -> bool:
            return await connection.commands.hget(connection.keys.watcher, "prefix") is None

        await wait_until(is_standing_by, timeout=PATIENCE_SECONDS, description="only the other reports")
        assert await catalog.adapters() == {}
        await other.resign()
        await catalog.until("sql", AdapterState.READY)


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


async def test_records_that_are_not_of_our_shape_are_replaced_or_withdrawn(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"sql"})
    for name in ("sql", "rubbish"):
        await connection.commands.hset(connection.keys.adapters, name, "{}")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("sql", AdapterState.READY)

        async def is_clean() -> bool:
            return (await catalog.reader.listing()).unreadable == frozenset()

        await wait_until(is_clean, timeout=PATIENCE_SECONDS, description="the rubbish is gone")


async def test_another_prefix_for_the_same_pool_replaces_all_of_the_old_one(
    connection: Connection, prefix: Path, tmp_path: Path
) -> None:
    for number in range(6):
        write_adapter(prefix / f"a{number}")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({f"a{number}" for number in range(6)})
    write_adapter(tmp_path / "other" / "a0")
    rule = RemovalRule(grace_seconds=0.2, mass_grace_seconds=600)
    async with watching(connection, tmp_path / "other", settle=SOON["settle"], removal=rule) as catalog:
        await catalog.until_served({"a0"})
        assert (await catalog.adapters())["a0"].prefix == str(tmp_path / "other")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_process_cleanly(
    number: signal.Signals, connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    catalog = Catalog(connection)
    with process(prefix, connection.url) as child:
        await catalog.until("sql", AdapterState.READY)
        os.kill(child.pid, number)
        ended = await asyncio.to_thread(child.wait, 10)
        assert ended == 0
    assert await catalog.status() is None
