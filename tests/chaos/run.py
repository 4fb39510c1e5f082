"""One run: two watchers, workers, an API and a Redis behind a proxy, while faults happen and files change."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradrop.catalog.status import RefreshStatus
from testkit.servers import valkey
from tests.chaos.api_client import ApiClient
from tests.chaos.judge import broken
from tests.chaos.nemesis import Nemesis, Stage
from tests.chaos.processes import Api, Watchers
from tests.chaos.record import Record
from tests.chaos.requests import request
from tests.chaos.samples import measure, weigh
from tests.chaos.workers import Workers
from tests.chaos.writer import Writer
from tests.faults.followers import Fleet, following
from tests.faults.proxy import proxy_to

SERVED = 40
"""Adapters every worker serves from the start: the steady ones, and as many that change."""

_REFRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, where: the same seed makes the same choices of faults and changes."""

    directory: Path
    seed: int
    seconds: float
    workers: int = 8
    adapters: int = 1_000
    every_seconds: float = 5.0
    """From the start of a fault to the start of the next, on average."""
    only: Sequence[str] = ()
    """The faults to choose from; all where there are none."""


async def run(plan: Plan, record: Record) -> list[str]:
    """Make one run, and return what breaks an invariant; raises AssertionError where it never settles."""
    prefix = plan.directory / "prefix"
    prefix.mkdir()
    writer = Writer(prefix, record, adapters=plan.adapters, seed=plan.seed)
    writer.begin()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(valkey(plan.directory))
        proxy = await stack.enter_async_context(proxy_to(server.port))
        watchers = stack.enter_context(closing(Watchers(proxy.url, prefix, plan.directory / "watchers.log")))
        api = stack.enter_context(closing(Api(proxy.url, plan.directory)))
        client = await stack.enter_async_context(ApiClient(api, record, seed=plan.seed))
        fleet = await stack.enter_async_context(following(proxy.url, plan.directory, count=plan.workers))
        workers = Workers(fleet, record)
        stage = Stage(server, proxy, watchers, api, writer, workers, client)
        await _struck(plan, record, fleet, stage)
    return broken(record.entries)


async def _struck(plan: Plan, record: Record, fleet: Fleet, stage: Stage) -> None:
    writer, client, workers = stage.writer, stage.client, stage.workers
    await fleet.until_listed(writer.on_disk)
    await fleet.serve(list(writer.on_disk)[:SERVED])
    await client.until_alive()
    async with _beside(
        workers.observe(),
        request(list(fleet.followers), writer.steady, record, seed=plan.seed),
        weigh(lambda: _pids(stage), record),
        measure(stage.server.url, record),
    ):
        async with _beside(writer.run(), client.run()):
            nemesis = Nemesis(stage, record, seed=plan.seed, only=plan.only)
            await nemesis.run(seconds=plan.seconds, every_seconds=plan.every_seconds)
        await fleet.until_listed(writer.on_disk)  # I2
        await client.until_listed(writer.on_disk)
        assert await client.refresh(seconds=_REFRESH_SECONDS) is RefreshStatus.CONVERGED
        await fleet.serve(list(writer.on_disk)[:SERVED])
    workers.look()


def _pids(stage: Stage) -> dict[str, int]:
    watchers = {f"watcher {number}": pid for number, pid in enumerate(stage.watchers.pids)}
    return {**watchers, "api": stage.api.pid}


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
