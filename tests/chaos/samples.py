"""How much each process holds, and how long the streams are, once a second."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from catalog.errors import CatalogUnavailable
from catalog.store import Connection
from catalog.store.connection import translated
from tests.chaos.record import Record

_PAUSE_SECONDS = 1.0


async def weigh(pids: Callable[[], Mapping[str, int]], record: Record) -> None:
    """Note memory, threads and files of the processes `pids` names, and the tasks of this one."""
    own = psutil.Process()
    while True:
        for who, pid in pids().items():
            with suppress(psutil.NoSuchProcess):  # killed
                process = psutil.Process(pid)
                rss = process.memory_info().rss
                record.note(who, "weighs", pid=pid, rss=rss, **_held_by(process))
        # Of the driver no memory: it holds the record, which grows.
        record.note("driver", "weighs", pid=own.pid, tasks=len(asyncio.all_tasks()), **_held_by(own))
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
        pipeline.hmget(keys.meta, "epoch", "seq", "complete")
        pipeline.hlen(keys.adapters)
        pipeline.xlen(keys.events)
        pipeline.xlen(keys.refreshes)
        (epoch, seq, complete), adapters, events, refreshes = await pipeline.execute()
    if epoch is not None:
        facts = {"adapters": adapters, "events": events, "refreshes": refreshes}
        record.note("redis", "holds", epoch=epoch, seq=int(seq), complete=complete == "1", **facts)


def _held_by(process: psutil.Process) -> dict[str, int]:
    return {"threads": process.num_threads(), "files": process.num_fds()}
