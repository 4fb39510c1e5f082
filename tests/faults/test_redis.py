"""Faults of Redis, from the drop of an adapter to every worker's list: 19 to 22, and 24.

`LORADROP_TEST_AWAY_SECONDS=600`, with pytest's `-o faulthandler_timeout=0`, plays the outage at full length.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from loradrop.api.settings import Settings
from loradrop.catalog.errors import CatalogDenied
from loradrop.catalog.store import Connection
from loradrop.catalog.store import connection as connection_module
from loradrop.watcher.timings import Timings
from loradrop.worker.fleet import catalog_follower as consumer_module
from tests.api.conftest import api_client
from tests.faults.followers import Fleet, following
from tests.faults.proxy import losing_replies, proxy_to
from tests.faults.table import Row
from tests.faults.watchers import History, drop, since, watcher_process
from tests.servers import ValkeyServer, valkey
from tests.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, Catalog

AWAY_SECONDS = float(os.environ.get("LORADROP_TEST_AWAY_SECONDS", "3"))


async def test_19_killed_and_back_from_its_file(
    server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with watcher_process(own, prefix) as (_, history):
        wanted = drop(history, prefix, "sql", "code", "math")
        await history.until_revisions(wanted)
        await history.until_complete()
        async with following(server.url, tmp_path) as fleet:
            await fleet.until_listed(wanted)
            await fleet.serve(wanted)
            killed = time.monotonic()
            server.kill()
            await fleet.until_stale()
            row.detect_seconds = since(killed)
            await fleet.serve(wanted)  # requests are answered as before
            assert [follower.listed() for follower in fleet.followers] == [wanted, wanted]
            wanted |= drop(history, prefix, "later", seed=7)
            server.start()
            back = time.monotonic()
            await fleet.until_listed(wanted)
            row.converge_seconds = since(back)
            assert [follower.reader.listings for follower in fleet.followers] == [1, 1], "not listed again"
            await fleet.check(row, history, wanted)


@pytest.mark.parametrize("how", ["restarted", "flushed"])
async def test_20_emptied(
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
    """A second Valkey, that is nobody's replica yet."""
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


async def test_21_a_lagging_replica_takes_over(
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


async def test_21_an_older_copy_is_restored_in_place(
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of this process that are passed in a second instead of ten."""
    monkeypatch.setattr(connection_module, "_COMMAND_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(connection_module, "_MARGIN_SECONDS", 1.0 - connection_module.BLOCK_SECONDS)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["frozen", "behind a network that carries nothing"])
async def test_22_silent(
    how: str, server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with (
        proxy_to(server.port) as network,
        watcher_process(own, prefix, "--redis-url", network.url) as (_, history),
        following(network.url, tmp_path) as fleet,
        api_client(Settings(redis_url=network.url)) as api,
    ):
        wanted = drop(history, prefix, "sql", "code")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        silent = time.monotonic()
        server.freeze() if how == "frozen" else network.stall()
        await fleet.until_stale()
        row.detect_seconds = since(silent)
        answer = await api.get("/v1/lora_adapters")
        assert (answer.status_code, answer.json()["code"]) == (503, "catalog_unavailable")
        assert [follower.listed() for follower in fleet.followers] == [wanted, wanted]
        wanted |= drop(history, prefix, "later", seed=7)
        server.thaw() if how == "frozen" else network.flow()
        back = time.monotonic()
        await fleet.until_listed(wanted)
        row.converge_seconds = since(back)
        assert (await api.get("/v1/lora_adapters")).status_code == 200
        await fleet.check(row, history, wanted)


async def test_24_every_tenth_reply_is_lost(
    server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with (
        proxy_to(server.port) as network,
        watcher_process(own, prefix, "--redis-url", network.url) as (_, history),
        following(network.url, tmp_path, count=3) as fleet,
    ):
        wanted = drop(history, prefix, "a0")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        network.loses = losing_replies(0.1, seed=1)
        while network.lost < 50:
            wanted |= drop(history, prefix, f"a{len(wanted)}", seed=len(wanted) + 1)
            await history.until_revisions(wanted)
        network.loses = losing_replies(0.0, seed=1)
        mended = time.monotonic()
        await fleet.until_listed(wanted)
        row.converge_seconds = since(mended)
        await fleet.check(row, history, wanted)


async def test_redis_denies_everything_for_a_while(
    server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async def permit(*rules: str) -> None:
        await own.commands.execute_command("ACL", "SETUSER", "fleet", "on", ">pw", *rules)

    await permit("~*", "+@all")
    url = server.url.replace("//", "//fleet:pw@")
    async with (
        watcher_process(own, prefix, "--redis-url", url) as (_, history),
        following(url, tmp_path) as fleet,
    ):
        wanted = drop(history, prefix, "sql", "code")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        denied = time.monotonic()
        await permit("-@all")
        await fleet.until_stale()
        row.detect_seconds = since(denied)
        stale = [follower.consumer.position.stale for follower in fleet.followers]
        assert all(isinstance(error, CatalogDenied) for error in stale)
        assert [follower.listed() for follower in fleet.followers] == [wanted, wanted]
        wanted |= drop(history, prefix, "later", seed=7)
        await permit("+@all")
        permitted = time.monotonic()
        await fleet.until_listed(wanted)
        row.converge_seconds = since(permitted)
        await fleet.check(row, history, wanted)


def test_however_long_redis_is_away_nobody_waits_five_seconds_before_looking_again() -> None:
    assert max(Timings().last_pause_seconds, consumer_module._LONGEST_PAUSE_SECONDS) < 5


async def ask_for_ever(fleet: Fleet, names: Collection[str]) -> None:
    """Ask every follower for what is known, all the time; an answer that fails ends it."""
    while True:
        await fleet.serve(names)
        await asyncio.sleep(0.01)  # some thousand requests a second, and room for the others


@pytest.mark.timeout(300 + AWAY_SECONDS)
async def test_redis_away_under_load(
    server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    row.scenario = f"redis away for {AWAY_SECONDS:g} s under load"
    async with (
        watcher_process(own, prefix) as (_, history),
        following(server.url, tmp_path, count=4) as fleet,
    ):
        known = drop(history, prefix, *(f"a{number}" for number in range(20)))
        await fleet.until_listed(known)
        load = asyncio.create_task(ask_for_ever(fleet, known))
        killed = time.monotonic()
        server.kill()
        await fleet.until_stale()
        row.detect_seconds = since(killed)
        wanted = known | drop(history, prefix, "later", "last", seed=30)
        done, _ = await asyncio.wait([load], timeout=AWAY_SECONDS)
        assert not done, "a request for what was known has failed"
        assert [follower.listed() for follower in fleet.followers] == [known] * len(fleet.followers)
        server.start()
        back = time.monotonic()
        await fleet.until_listed(wanted)
        row.converge_seconds = since(back)
        assert not load.done(), "a request for what was known has failed"
        load.cancel()
        await fleet.check(row, history, wanted)
