"""Faults of Redis, from the drop of an adapter to every worker's list: dead, silent, lossy, closed to us.

`LORADROP_TEST_AWAY_SECONDS=600`, with pytest's `-o faulthandler_timeout=0`, plays the outage at full length.
"""

import asyncio
import os
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from loradrop.api.settings import Settings
from loradrop.catalog.errors import CatalogDenied
from loradrop.catalog.store import Connection, Timeouts
from testkit.servers import ValkeyServer
from tests.api.conftest import api_client
from tests.faults.followers import Fleet, following
from tests.faults.proxy import losing_replies, proxy_to
from tests.faults.table import Row
from tests.faults.watchers import drop, since, watcher_process

AWAY_SECONDS = float(os.environ.get("LORADROP_TEST_AWAY_SECONDS", "3"))


async def test_killed_and_back_from_its_file(
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


@pytest.mark.parametrize("how", ["frozen", "behind a network that carries nothing"])
async def test_silent(
    how: str, server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with (
        proxy_to(server.port) as network,
        watcher_process(own, prefix, "--redis-url", network.url) as (_, history),
        following(network.url, tmp_path, timeouts=Timeouts(0.5, 0.1, 0.9)) as fleet,
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


async def test_every_tenth_reply_is_lost(
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
        stale = [follower.catalog_follower.position.stale for follower in fleet.followers]
        assert all(isinstance(error, CatalogDenied) for error in stale)
        assert [follower.listed() for follower in fleet.followers] == [wanted, wanted]
        wanted |= drop(history, prefix, "later", seed=7)
        await permit("+@all")
        permitted = time.monotonic()
        await fleet.until_listed(wanted)
        row.converge_seconds = since(permitted)
        await fleet.check(row, history, wanted)


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
