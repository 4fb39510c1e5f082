"""Faults of Redis that take data away: emptied, restored from an older copy, a replica that lags."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from loradrop.catalog.store import Connection
from testkit.servers import ValkeyServer, valkey
from testkit.waiting import wait_until
from tests.faults.followers import following
from tests.faults.proxy import proxy_to
from tests.faults.table import Row
from tests.faults.watchers import History, drop, since, watcher_process
from tests.watcher.running import PATIENCE_SECONDS, Catalog


@pytest.mark.parametrize("how", ["restarted", "flushed"])
async def test_emptied(
    how: str, server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with watcher_process(own, prefix) as (_, history), following(server.url, tmp_path) as fleet:
        wanted = drop(history, prefix, "sql", "code", "math")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        epoch = (await history.catalog.reader.listing()).epoch
        emptied = time.monotonic()
        if how == "flushed":
            await own.commands.flushall()
        else:
            server.kill()
            shutil.rmtree(server.directory / "appendonlydir")
            server.start()
        await fleet.until_epoch_other_than(epoch)
        row.detect_seconds = since(emptied)
        wanted |= drop(history, prefix, "later", seed=7)
        await fleet.until_converged(history, wanted)
        row.converge_seconds = since(emptied)
        await fleet.check(row, history, wanted)


@pytest.fixture
def replica(server: ValkeyServer, tmp_path: Path) -> Iterator[ValkeyServer]:
    """A second Valkey, that is no replica yet."""
    directory = tmp_path / "replica"
    directory.mkdir()
    with valkey(directory) as replica:
        yield replica


async def replicate(replica: ValkeyServer, port: int, own: Connection) -> None:
    """Make `replica` one of the server behind `port`, and wait until it holds what that holds."""
    await own.commands.config_set("repl-diskless-sync-delay", "0")
    async with Connection(replica.url) as connection:
        await connection.commands.replicaof("127.0.0.1", port)

        async def is_in_step() -> bool:
            replication = await connection.commands.info("replication")
            return bool(replication["master_link_status"] == "up")

        await wait_until(is_in_step, timeout=PATIENCE_SECONDS, description="the replica is in step")


async def promote(replica: ValkeyServer) -> None:
    async with Connection(replica.url) as connection:
        await connection.commands.replicaof("NO", "ONE")


async def test_a_lagging_replica_takes_over(
    server: ValkeyServer, replica: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with (
        proxy_to(server.port) as address,
        proxy_to(server.port) as link,
        watcher_process(own, prefix, "--redis-url", address.url) as (_, told),
        following(address.url, tmp_path) as fleet,
        Connection(replica.url) as promoted,
    ):
        wanted = drop(told, prefix, "sql", "code", "old")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        await told.until_complete()
        await replicate(replica, link.port, own)
        link.stall()
        wanted |= drop(told, prefix, "later", "last", seed=7)
        shutil.rmtree(prefix / "old")
        del wanted["old"]
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        epoch = (await told.catalog.reader.listing()).epoch
        server.kill()
        await promote(replica)
        address.upstream_port = replica.port
        address.cut()
        failed_over = time.monotonic()
        await fleet.until_epoch_other_than(epoch)
        row.detect_seconds = since(failed_over)
        history = History(Catalog(promoted), complete=told.complete)
        await fleet.until_converged(history, wanted)
        row.converge_seconds = since(failed_over)
        await fleet.check(row, history, wanted)


async def test_an_older_copy_is_restored_in_place(
    own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    keys = (own.keys.meta, own.keys.adapters, own.keys.events)
    async with (
        watcher_process(own, prefix) as (_, history),
        following(own.url, tmp_path) as fleet,
        Redis.from_url(own.url) as operator,
    ):
        wanted = drop(history, prefix, "sql", "code", "old")
        await fleet.until_listed(wanted)
        await history.until_complete()
        copies = {key: await operator.dump(key) or b"" for key in keys}
        wanted |= drop(history, prefix, "later", "last", seed=7)
        shutil.rmtree(prefix / "old")
        del wanted["old"]
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        epoch = (await history.catalog.reader.listing()).epoch
        async with operator.pipeline(transaction=True) as restoring:
            for key, copy in copies.items():
                restoring.restore(key, 0, copy, replace=True)
            await restoring.execute()
        restored = time.monotonic()
        await fleet.until_epoch_other_than(epoch)
        row.detect_seconds = since(restored)
        await fleet.until_converged(history, wanted)
        row.converge_seconds = since(restored)
        await fleet.check(row, history, wanted)
