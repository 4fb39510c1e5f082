"""Followers of a catalog, and the least that does as much: tasks for `crews`.

`Follower` is a worker without its engine: the worker's own follower feeds its own reconciler. The bare ones
know neither epoch nor gap: XREAD, or HGETALL and parse.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio

from bench.scan import scandir_and_stats
from bench.support.crews import in_place, until_go
from loradrop.catalog.adapter import Adapter
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Connection, Reader, Reports
from loradrop.worker.fleet.catalog_follower import CatalogFollower
from loradrop.worker.fleet.reporter import Reporter
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.store.copying import Source
from loradrop.worker.store.pins import Pinned
from testkit.fakes import FakeEngine, FakeTable

BATCH = 256
"""Entries the reader takes at once; the bare ones take as many."""
BLOCK_MS = 2000
LAST = b"last"
"""The id of the entry after which nothing comes."""

Heard = dict[str, float]
"""When (`time.monotonic`) each name was listed, or read."""


class NotingReconciler(Reconciler):
    """A reconciler that notes when each name it is given has been taken in. It is never asked to load."""

    def __init__(self) -> None:
        super().__init__(FakeEngine(), FakeTable(), _unasked, prefix=None, capacity=1)
        self.heard: Heard = {}
        self.moved = asyncio.Event()

    def replace(self, adapters: Mapping[str, Adapter], unreadable: Any = ()) -> None:
        """Take in a listing."""
        super().replace(adapters, unreadable)
        self.moved.set()

    def apply(self, changes: Mapping[str, Adapter | None]) -> None:
        """Take in what the stream told."""
        super().apply(changes)
        now = time.monotonic()
        for name in changes:
            self.heard.setdefault(name, now)
        self.moved.set()


class Follower:
    """A catalog follower and the reconciler it feeds."""

    def __init__(self, connection: Connection) -> None:
        """Follow over `connection`."""
        self.reconciler = NotingReconciler()
        self.catalog_follower = CatalogFollower(
            Reader(connection), self.reconciler, moved=self.reconciler.status.wakeup
        )
        self._connection = connection

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow for the length of the block, from where the last such block ended."""
        async with _running(self.catalog_follower.run):
            yield

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Report, as a worker does, for the length of the block."""
        now = datetime.now(UTC)
        identity = WorkerStatus(
            id=f"bench-{secrets.token_hex(4)}:8000",
            base_model="bench",
            url="",
            started_at=now,
            last_heartbeat=now,
        )
        reporter = Reporter(
            Reports(self._connection),
            identity,
            adapters=self.reconciler.status,
            position=lambda: self.catalog_follower.position,
            degraded=lambda: None,
        )
        async with _running(reporter.run):
            yield

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until `is_so` holds of what was taken in."""
        while not is_so():
            await self.reconciler.moved.wait()
            self.reconciler.moved.clear()


@asynccontextmanager
async def _started(url: str) -> AsyncIterator[tuple[Follower, "redis.asyncio.Redis"]]:
    """Yield a follower that has not begun, and a client for the words to its crew."""
    async with Connection(url) as connection, redis.asyncio.Redis.from_url(url) as client:
        yield Follower(connection), client


async def hear(url: str, names: frozenset[str]) -> Heard:
    """Follow until all of `names` are listed that were not there before."""
    async with _started(url) as (follower, client), follower.following():
        await follower.until(lambda: follower.catalog_follower.position.epoch is not None)
        await in_place(client)
        heard = follower.reconciler.heard
        await follower.until(lambda: names <= heard.keys())
        return {name: heard[name] for name in names}


async def hear_bare(url: str, names: frozenset[str], stream: str) -> Heard:
    """Read until all of `names` are in `stream`."""
    heard: Heard = {}
    async with redis.asyncio.Redis.from_url(url) as client:
        cursor = await _newest(client, stream)
        await in_place(client)
        while not names <= heard.keys():
            for _, entries in await client.xread({stream: cursor}, count=BATCH, block=BLOCK_MS) or []:
                now = time.monotonic()
                cursor = entries[-1][0]
                for _, fields in entries:
                    heard.setdefault(fields[b"name"].decode(), now)
    return heard


async def start(url: str) -> float:
    """Start on a catalog; return when all of it is listed."""
    async with _started(url) as (follower, client):
        await until_go(client)
        async with follower.following():
            await follower.until(lambda: follower.catalog_follower.position.epoch is not None)
            return time.monotonic()


async def start_bare(url: str, key: str, parser: str) -> float:
    """Fetch a hash and parse its records; return when that is done."""
    parse = PARSERS[parser]
    async with redis.asyncio.Redis.from_url(url) as client:
        await until_go(client)
        async with redis.asyncio.Redis.from_url(url) as own:
            adapters = {name.decode(): parse(record) for name, record in (await own.hgetall(key)).items()}
            assert adapters
            return time.monotonic()


async def catch_up(url: str, missed: int) -> float:
    """Follow, be away while `missed` events are published, follow on; return when all are taken in."""
    async with _started(url) as (follower, client):
        async with follower.following():
            await follower.until(lambda: follower.catalog_follower.position.epoch is not None)
        seq = follower.catalog_follower.position.seq + missed
        await until_go(client)
        async with follower.following():
            await follower.until(lambda: follower.catalog_follower.position.seq >= seq)
            return time.monotonic()


async def catch_up_bare(url: str, missed: int, stream: str) -> float:
    """Read `missed` entries that come after now and count them, once all are there."""
    async with redis.asyncio.Redis.from_url(url) as client:
        cursor = await _newest(client, stream)
        await until_go(client)
        count = 0
        while count < missed:
            [(_, entries)] = await client.xread({stream: cursor}, count=BATCH)
            cursor = entries[-1][0]
            count += len(entries)
        return time.monotonic()


async def report(url: str, done: str) -> None:
    """Follow and report, as a worker that serves, until there is an entry in the stream `done`."""
    async with _started(url) as (follower, client), follower.following():
        await follower.until(lambda: follower.catalog_follower.position.epoch is not None)
        async with follower.reporting():
            await in_place(client)
            while not await client.xread({done: "0-0"}, block=BLOCK_MS):
                pass


async def acknowledge(url: str, stream: str, acknowledged: str) -> None:
    """Answer each entry of `stream` with one in `acknowledged`, until one says that it is the last."""
    async with redis.asyncio.Redis.from_url(url) as client:
        cursor = await _newest(client, stream)
        await in_place(client)
        while True:
            for _, entries in await client.xread({stream: cursor}, block=BLOCK_MS) or []:
                cursor, fields = entries[-1]
                if fields[b"id"] == LAST:
                    return
                await client.xadd(acknowledged, {"id": fields[b"id"]})


async def look_and_answer(url: str, asked: str, prefix: Path, stream: str) -> None:
    """Look at all of `prefix` for each entry of `asked`, then pass it on to `stream`, up to the last."""
    async with redis.asyncio.Redis.from_url(url) as client:
        cursor = await _newest(client, asked)
        await in_place(client)
        while True:
            for _, entries in await client.xread({asked: cursor}, block=BLOCK_MS) or []:
                cursor, fields = entries[-1]
                if fields[b"id"] != LAST:
                    scandir_and_stats(prefix)
                await client.xadd(stream, {"id": fields[b"id"]})
                if fields[b"id"] == LAST:
                    return


async def _newest(client: "redis.asyncio.Redis", stream: str) -> Any:
    entries = await client.xrevrange(stream, count=1)
    return entries[0][0] if entries else b"0-0"


@asynccontextmanager
async def _running(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _unasked(_source: Source) -> Pinned:
    raise AssertionError("A benchmark without requests loads nothing.")


PARSERS: dict[str, Callable[[bytes], object]] = {
    "json": json.loads,
    "msgspec": msgspec.json.Decoder(Adapter).decode,
}
