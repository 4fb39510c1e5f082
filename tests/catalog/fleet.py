"""A watcher and workers without disk and engine: they keep the catalog's side of the bargain, for real."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from loradrop.catalog.adapter import Adapter, AdapterState, Reason
from loradrop.catalog.errors import CatalogUnavailable, LoradropError
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus, WorkerAdapter
from loradrop.catalog.store import Connection, Publisher, Reader, Refreshes, Reports, Withdrawal
from testkit.waiting import wait_until
from tests.catalog.values import GONE, a_watcher, a_worker

_LOOK_SECONDS = 0.02


class FakeWatcher:
    """Publishes what `disk` says when it is asked to, and answers every refresh.

    `unreadable` stands for a prefix that cannot be read; `deaf` for a watcher that never answers.
    """

    def __init__(self, connection: Connection, disk: Mapping[str, Adapter] | None = None) -> None:
        self.disk = dict(disk or {})
        self.unreadable: Reason | None = None
        self.degraded: Reason | None = None
        self.deaf = False
        self.publisher = Publisher(connection, owner="watcher-1")
        self._reader = Reader(connection)
        self._refreshes = Refreshes(connection, block_seconds=_LOOK_SECONDS)

    async def scan(self) -> None:
        """Publish the whole disk."""
        held = (await self._reader.listing()).adapters
        gone = [Withdrawal(name, GONE) for name in held if name not in self.disk]
        await self.publisher.publish([*self.disk.values(), *gone], catalog_size=len(self.disk))

    async def report(self) -> None:
        await self.publisher.report(a_watcher(degraded=self.degraded, counts=self._counts()))

    async def answer_for_ever(self) -> None:
        cursor = "0-0"
        while True:
            cursor, requests = await self._refreshes.requests_after(cursor)
            for request in requests:
                if not self.deaf:
                    await self._refreshes.answer(await self._answer(request))

    async def _answer(self, request: RefreshRequest) -> RefreshResult:
        if self.unreadable is not None:
            return self._result(request, RefreshStatus.FAILED, error=self.unreadable)
        held = (await self._reader.listing()).adapters
        served = {name: adapter for name, adapter in held.items() if adapter.revision}
        ready = {name: adapter for name, adapter in self.disk.items() if adapter.revision}
        if not request.dry_run:
            await self.scan()
        return self._result(
            request,
            RefreshStatus.SCANNED,
            discovered=tuple(sorted(ready.keys() - served.keys())),
            updated=tuple(
                name for name in ready if name in served and ready[name].revision != served[name].revision
            ),
            removed=tuple(sorted(served.keys() - ready.keys())),
            rejected={
                name: adapter.reason
                for name, adapter in self.disk.items()
                if adapter.state is AdapterState.REJECTED and adapter.reason
            },
            total=len(ready),
            seq=self.publisher.seq,
        )

    def _result(self, request: RefreshRequest, status: RefreshStatus, **values: Any) -> RefreshResult:
        return RefreshResult(
            id=request.id, status=status, at=datetime.now(UTC), dry_run=request.dry_run, **values
        )

    def _counts(self) -> dict[AdapterState, int]:
        states = [adapter.state for adapter in self.disk.values()]
        return {state: states.count(state) for state in AdapterState if state in states}


class FakeWorker:
    """Follows the catalog and reports how far it has come; `paused` stands for one that hangs."""

    def __init__(self, connection: Connection, worker_id: str) -> None:
        self.id = worker_id
        self.paused = False
        self.degraded: Reason | None = None
        self.adapters: dict[str, WorkerAdapter] = {}
        self.counts: dict[str, int] = {"listed": 1}
        self._reader = Reader(connection)
        self._reports = Reports(connection)
        self._seen: tuple[str | None, int] = (None, 0)

    async def report_for_ever(self) -> None:
        while True:
            with suppress(CatalogUnavailable):
                await self.report()
            await asyncio.sleep(_LOOK_SECONDS)  # the heartbeat of a fake, not a wait for a state

    async def report(self) -> None:
        if not self.paused:
            listing = await self._reader.listing()
            self._seen = (listing.epoch, listing.seq)
        epoch, seq = self._seen
        status = a_worker(self.id, epoch=epoch, observed_seq=seq, counts=self.counts, degraded=self.degraded)
        await self._reports.report_worker(status, self.adapters, everything=True)


@asynccontextmanager
async def fleet(
    redis_url: str, *, disk: Mapping[str, Adapter] | None = None, workers: int = 2
) -> AsyncIterator[tuple[FakeWatcher, list[FakeWorker]]]:
    """Run a watcher that has published `disk`, and `workers` that have observed it."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(Connection(redis_url))
        watcher = FakeWatcher(connection, disk)
        await watcher.publisher.lead()
        await watcher.scan()
        await watcher.report()
        crew = [FakeWorker(connection, f"gpu-{number}:8000") for number in range(1, workers + 1)]
        for worker in crew:
            await worker.report()
        async with _running(watcher.answer_for_ever(), *(worker.report_for_ever() for worker in crew)):
            yield watcher, crew


@asynccontextmanager
async def _running(*loops: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
        failed = [task.exception() for task in tasks if task.done()]
        assert not failed, failed
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, LoradropError):
                await task


async def until_observed(reports: Reports, seq: int) -> None:
    """Wait until every living worker has observed `seq`."""

    async def observed() -> bool:
        return all(worker.observed_seq >= seq for worker in (await reports.workers()).values())

    await wait_until(observed, timeout=10, description=f"every worker has observed seq {seq}")
