"""How much each process holds, and how long the streams are, once a second."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.store import Connection
from loradrop.catalog.store.connection import translated
from loradrop.catalog.wire import decode_seq
from tests.chaos.record import Record

_PAUSE_SECONDS = 1.0


async def weigh(pids: Callable[[], Mapping[str, int]], record: Record) -> None:
    """Note memory, threads and files of the processes `pids` names; of this one threads, and its tasks.

    Here the rest says nothing: the record grows, and stub workers keep open whatever they have ever loaded.
    """
    own = psutil.Process()
    while True:
        for who, pid in pids().items():
            with suppress(psutil.NoSuchProcess):  # killed
                process = psutil.Process(pid)
                rss, threads, files = process.memory_info().rss, process.num_threads(), process.num_fds()
                record.note(who, "weighs", pid=pid, rss=rss, threads=threads, files=files)
        record.note("driver", "weighs", pid=own.pid, threads=own.num_threads(), tasks=_tasks())
        await asyncio.sleep(_PAUSE_SECONDS)  # how finely the record is drawn


async def measure(redis_url: str, record: Record) -> None:
    """Note how far the catalog has come and how long its streams are, while Redis is there."""
    async with Connection(redis_url) as connection:
        while True:
            with suppress(CatalogUnavailable):
                await _measure(connection, record)
            await asyncio.sleep(_PAUSE_SECONDS)  # how finely the record is drawn


async def _measure(connection: Connection, record: Record) -> None:
    keys = connection.keys
    async with translated(), connection.commands.pipeline(transaction=True) as pipeline:
        pipeline.hmget(keys.meta, "epoch", "seq", "complete", "count")
        pipeline.hlen(keys.adapters)
        pipeline.xlen(keys.events)
        pipeline.xlen(keys.refreshes)
        (epoch, seq, complete, count), adapters, events, refreshes = await pipeline.execute()
    if epoch is not None:
        facts = {"adapters": adapters, "events": events, "refreshes": refreshes}
        is_whole = complete == "1" and count == str(adapters)
        record.note("redis", "holds", epoch=epoch, seq=decode_seq(seq), complete=is_whole, **facts)


def _tasks() -> int:
    """Return how many tasks there are beside those of the proxy, three a connection."""
    return sum(
        not repr(task.get_coro()).startswith("<coroutine object Proxy.") for task in asyncio.all_tasks()
    )
