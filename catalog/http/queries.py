"""The questions both HTTP ports answer, asked of Redis.

Not here: the shapes of the answers (`views`), and HTTP itself (`shared_routes`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import (
    NO_CATALOG,
    CatalogUnavailable,
    DiscoveryError,
    UnknownAdapter,
    UnknownRefresh,
)
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.http.adapter_stream import adapter_rows, listed_rows
from loradrop.catalog.http.refresh_views import (
    AskedRefresh,
    RefreshBody,
    RefreshView,
    asked_refresh,
    out_of_time,
    refresh_view,
)
from loradrop.catalog.http.views import AdapterView, ReportedWorker, WorkerView, adapter_view, worker_view
from loradrop.catalog.status import RefreshStatus
from loradrop.catalog.store import Connection, Reader, Refreshes, Reports

_FIRST_LOOK_SECONDS = 0.005
_LAST_LOOK_SECONDS = 0.2
_FOR_THE_WORKERS_SECONDS = 1.0
"""What the watcher leaves of a refresh's time, so that workers can observe what it published."""


class Queries:
    """Answers about one pool. Every method raises CatalogUnavailable, CatalogDenied or CatalogRefused."""

    def __init__(self, connection: Connection) -> None:
        self._reader = Reader(connection)
        self._reports = Reports(connection)
        self._refreshes = Refreshes(connection)

    async def adapters(self) -> AsyncIterator[bytes]:
        """Return every adapter with its state on every worker, by name: a list as JSON, in chunks.

        Raises CatalogUnavailable, too, where records are missing: the others are not all there are.
        """
        listing = await self._reader.listing()
        if listing.damaged:
            raise CatalogUnavailable(
                "The catalog in Redis is damaged: records are missing, or too many. The watcher replaces it."
            )
        adapters = (adapter for _, adapter in sorted(listing.adapters.items()))
        return listed_rows(adapter_rows(adapters, listing.epoch, await self._reported_workers()))

    async def adapter(self, name: str) -> AdapterView:
        """Return one adapter; raises UnknownAdapter."""
        epoch, _ = await self._meta()
        adapter: Adapter | None = await self._reader.get(name)
        if adapter is None:
            raise UnknownAdapter(f"No adapter named {name!r} is under the prefix. `loradrop ls` lists them.")
        return adapter_view(adapter, epoch, await self._reported_workers())

    async def workers(self) -> list[WorkerView]:
        """Return every living worker, by id."""
        epoch, seq = await self._meta()
        workers = await self._reports.workers()
        return [worker_view(status, epoch=epoch, seq=seq) for _, status in sorted(workers.items())]

    async def start_refresh(self, body: RefreshBody, *, asked_by: str = "") -> str:
        """Ask the watcher for a refresh and return its id; raises NoWatcher and TooManyRefreshes."""
        request = RefreshRequest(
            id=secrets.token_hex(8),
            at=datetime.now(UTC),
            names=tuple(body.names),
            dry_run=body.dry_run,
            confirm_removals=body.confirm_removals,
            timeout_seconds=max(body.timeout - _FOR_THE_WORKERS_SECONDS, body.timeout / 2),
            asked_by=asked_by,
        )
        await self._refreshes.request(request)
        return request.id

    async def refreshes(self, *, limit: int) -> list[AskedRefresh]:
        """Return the last `limit` refreshes that were asked for, the newest first."""
        return [asked_refresh(request, status) for request, status in await self._refreshes.asked(limit)]

    async def refresh(self, refresh_id: str) -> RefreshView:
        """Return a refresh as it stands; raises UnknownRefresh."""
        result = await self._refreshes.result(refresh_id)
        workers = list((await self._reports.workers()).values())
        meta = await self._reports.meta()
        return refresh_view(result, workers, epoch=meta.epoch if meta else "")

    async def finished_refresh(self, refresh_id: str, *, timeout_seconds: float) -> RefreshView:
        """Return a refresh once every living worker has observed it, or the time is up.

        Raises DiscoveryError where the watcher could not read the prefix, and CatalogUnavailable where
        the refresh is not there (any more): Redis was emptied.
        """
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        pause = _FIRST_LOOK_SECONDS
        while True:
            try:
                view = await self.refresh(refresh_id)
            except UnknownRefresh as error:
                raise CatalogUnavailable(
                    "Redis was emptied while the refresh was under way. Ask for a new one."
                ) from error
            if view.status is RefreshStatus.FAILED:
                raise DiscoveryError(view.message)
            if view.status is RefreshStatus.CONVERGED:
                return view
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return out_of_time(view)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LAST_LOOK_SECONDS)

    async def _reported_workers(self) -> dict[str, ReportedWorker]:
        statuses = await self._reports.workers()
        tables = await self._reports.tables(statuses)
        return {
            worker_id: ReportedWorker(status, tables[worker_id]) for worker_id, status in statuses.items()
        }

    async def _meta(self) -> tuple[str, int]:
        meta = await self._reports.meta()
        if meta is None:
            raise CatalogUnavailable(NO_CATALOG)
        return meta.epoch, meta.seq
