"""Takes manual refreshes in, follows them, and answers them.

Not here: what a refresh waits for and what is answered (`progress`, `refresh`), and examining (`monitor`).
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.printable import printable
from loradrop.catalog.status import RefreshResult
from loradrop.catalog.store import Refreshes
from loradrop.watcher.monitor.monitor import Monitor
from loradrop.watcher.publish.catalog_mirror import CatalogMirror
from loradrop.watcher.refresh.dry_run import preview
from loradrop.watcher.refresh.progress import Progress
from loradrop.watcher.refresh.refresh import Refresh, answer, failed
from loradrop.watcher.state.prefix_state import PrefixState

_logger = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS = 0.1
_MANY = 1_000

_Result = TypeVar("_Result")


class RefreshHandler:
    """The refreshes of one pool under way. Every method that talks to Redis raises the catalog's errors."""

    def __init__(self, inbox: Refreshes, monitor: Monitor, state: PrefixState, mirror: CatalogMirror) -> None:
        """Take requests from `inbox`, and answer them from what `monitor` makes of `state`."""
        self._inbox = inbox
        self._monitor = monitor
        self._state = state
        self._mirror = mirror
        self._refreshes: list[Refresh] = []
        self._hurried: Counter[str] = Counter()

    @property
    def confirmed(self) -> bool:
        """Whether the operator has said that what vanished is meant to be gone."""
        return any(refresh.request.confirm_removals for refresh in self._refreshes)

    def clear(self) -> None:
        """Forget what is under way: the watcher that leads next finds it unanswered."""
        self._refreshes.clear()
        self._hurried.clear()

    def is_hurried(self, name: str) -> bool:
        """Return whether a refresh waits to hear of `name`."""
        return self._hurried[""] > 0 or self._hurried[name] > 0

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the first of them must be answered as it stands."""
        deadlines = (refresh.deadline for refresh in self._refreshes if refresh.progress.awaited is not None)
        return min(deadlines, default=None)

    def advanced(self, progress: Progress, pending: Callable[[], set[str]] | None = None) -> Progress:
        """Return how far `progress` is now."""
        return progress.advanced(
            scans_done=self._monitor.scans_done,
            pending=pending or self._monitor.pending,
            is_open=self._monitor.is_open,
        )

    async def take_requests(self, session: asyncio.TaskGroup) -> None:
        """Take in requests for ever."""
        cursor = "0-0"
        while True:
            cursor, requests = await _stoppable(self._inbox.requests_after(cursor))
            listed = await self._list_for(requests)
            for request in requests:
                _logger.info(
                    "Refresh is asked for id=%s names=%s", printable(request.id), len(request.names) or "all"
                )
                if request.dry_run:
                    session.create_task(self._answer_dry_run(request))
                else:
                    self._accept(request, listed)
                await asyncio.sleep(0)  # each may have many names: heartbeats go first

    async def answer(self) -> None:
        """Answer the refreshes that are over, or out of time."""
        pending = cache(self._monitor.pending)
        self._refreshes = [
            replace(refresh, progress=self.advanced(refresh.progress, pending)) for refresh in self._refreshes
        ]
        for refresh in tuple(self._refreshes):
            result = self._result(refresh)
            if result is not None:
                await self._inbox.answer(result)
                self._refreshes.remove(refresh)
                self._hurried.subtract(refresh.progress.names or ("",))
                _logger.info(
                    "Refresh is answered id=%s status=%s", printable(refresh.request.id), result.status
                )

    async def _list_for(self, requests: Collection[RefreshRequest]) -> frozenset[str] | None:
        """Return what the prefix holds, where `requests` name what is not known; None if it cannot tell."""
        known = self._state.names.keys()
        if all(_is_large(request) or request.dry_run or known >= set(request.names) for request in requests):
            return frozenset()
        try:
            async with asyncio.timeout(min(request.timeout_seconds for request in requests)):
                return await self._monitor.list_names()
        except (DiscoveryError, TimeoutError):
            return None

    def _accept(self, request: RefreshRequest, listed: frozenset[str] | None) -> None:
        everything = not request.names or _is_large(request) or listed is None or self._monitor.failure
        progress = Progress(self._monitor.want_scan() if everything else 0, frozenset(request.names))
        self._refreshes.append(
            Refresh(
                request=request,
                progress=progress,
                before=self._mirror.served(),
                deadline=time.monotonic() + request.timeout_seconds,
            )
        )
        self._hurried.update(progress.names or ("",))
        if not everything:
            self._monitor.examine_soon(self._state.examinable(progress.names, listed or ()))

    async def _answer_dry_run(self, request: RefreshRequest) -> None:
        result = await preview(
            request, self._monitor, self._state, self._mirror.records, seq=self._mirror.seq
        )
        await self._inbox.answer(result)

    def _result(self, refresh: Refresh) -> RefreshResult | None:
        """Return the answer to `refresh` where it is due."""
        failure = self._monitor.failure
        if failure is not None and failure.number >= refresh.progress.scan:
            return failed(refresh.request, failure.reason, at=datetime.now(UTC))
        if not refresh.is_due(time.monotonic()):
            return None
        return answer(
            refresh.request,
            refresh.before,
            self._mirror.records,
            total=self._mirror.served_count,
            seq=self._mirror.seq,
            at=datetime.now(UTC),
        )


def _is_large(request: RefreshRequest) -> bool:
    """Return whether a scan costs less than to examine the names of `request` one by one."""
    return len(request.names) > _MANY


async def _stoppable(reading: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `reading` returns, and stop at once when cancelled.

    redis-py can lose a cancellation (see `catalog.store.connection`); a read that blocks for seconds would
    then hold up the end of the process for as long.
    """
    task = asyncio.ensure_future(reading)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
        raise
