"""One run: two watchers, workers and a Redis behind a proxy, while faults happen and the prefix changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.clients import Observed, ask, observe
from tests.chaos.nemesis import Nemesis, Watchers
from tests.chaos.record import Record, broken
from tests.chaos.writer import Writer
from tests.faults.followers import Fleet, following
from tests.faults.proxy import proxy_to
from tests.servers import valkey

SERVED = 40
"""Adapters every worker serves from the start: the steady ones, and as many that change."""

_MOST_GROWTH = 2
"""Of tasks, three a connection of the proxy among them: a pool may open a few more, but none a fault."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, where: the same seed makes the same choices of faults and changes."""

    directory: Path
    seed: int
    seconds: float
    workers: int = 8


async def run(plan: Plan, record: Record) -> list[str]:
    """Make one run, and return what breaks an invariant; raises AssertionError where it never settles."""
    prefix = plan.directory / "prefix"
    prefix.mkdir()
    writer = Writer(prefix, record, seed=plan.seed)
    writer.begin()
    with valkey(plan.directory) as server:
        async with proxy_to(server.port) as proxy:
            watchers = Watchers(proxy.url, prefix, plan.directory / "watchers.log")
            try:
                async with following(proxy.url, plan.directory, count=plan.workers) as fleet:
                    nemesis = Nemesis(server, proxy, watchers, fleet, writer, seed=plan.seed)
                    await _struck(plan, record, fleet, writer, nemesis)
            finally:
                watchers.close()
    return broken(record.entries)


async def _struck(plan: Plan, record: Record, fleet: Fleet, writer: Writer, nemesis: Nemesis) -> None:
    observed = [Observed(follower, record) for follower in fleet.followers]
    await fleet.until_listed(writer.on_disk)
    await fleet.serve(list(writer.on_disk)[:SERVED])
    tasks = len(asyncio.all_tasks())
    clock = asyncio.get_running_loop().time
    end = clock() + plan.seconds
    async with _beside(observe(observed), ask(list(fleet.followers), writer.steady, record, seed=plan.seed)):
        async with _beside(writer.run()):
            while clock() < end:
                await nemesis.strike(record)
        await fleet.until_listed(writer.on_disk)  # I2
        await fleet.serve(list(writer.on_disk)[:SERVED])
    for one in observed:
        one.look()
    assert len(asyncio.all_tasks()) <= _MOST_GROWTH * tasks, "tasks pile up"  # I8


@asynccontextmanager
async def _beside(*work: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
        assert not [task.exception() for task in tasks if task.done()], "what goes on beside broke"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
