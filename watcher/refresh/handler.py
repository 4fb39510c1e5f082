"""Where manual refreshes are taken in, followed, and answered.

Not here: what a refresh waits for and what is answered (`refreshing`), and looking (`lookout`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult
from loradrop.catalog.store import Refreshes
from loradrop.watcher.monitor.monitor import Lookout
from loradrop.watcher.publish.catalog_mirror import Ledger
from loradrop.watcher.refresh.dry_run import preview
from loradrop.watcher.refresh.refresh import Look, Refresh, answer, failed
from loradrop.watcher.state.prefix_state import served

_logger = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS = 0.1

_Result = TypeVar("_Result")


class Desk:
    """The refreshes of one pool under way. Every method that talks to Redis raises the catalog's errors."""

    def __init__(
        self, inbox: Refreshes, lookout: Lookout, ledger: Ledger, *, is_held: Callable[[str], bool]
    ) -> None:
        """Take requests from `inbox`. `is_held` says whether a name's removal is held back."""
        self._inbox = inbox
        self._lookout = lookout
        self._ledger = ledger
        self._is_held = is_held
        self._refreshes: list[Refresh] = []

    def clear(self) -> None:
        """Forget what is under way: whoever leads next finds it unanswered."""
        self._refreshes.clear()

    def is_hurried(self, name: str) -> bool:
        """Return whether a person waits to hear of `name`."""
        return any(refresh.look.covers(name) for refresh in self._refreshes)

    def is_confirmed(self) -> bool:
        """Return whether a person has said that what vanished was meant to."""
        return any(refresh.request.confirm_removals for refresh in self._refreshes)

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the first of them must be answered as it stands."""
        deadlines = (refresh.deadline for refresh in self._refreshes if refresh.look.awaited is not None)
        return min(deadlines, default=None)

    def is_over(self, look: Look) -> bool:
        """Return whether all that `look` waits for has been examined, has settled and is published."""
        return look.is_over(
            scans_done=self._lookout.scans.done, waiting=self._lookout.waiting, is_open=self._is_open
        )

    async def hear(self, session: asyncio.TaskGroup) -> None:
        """Take in requests for ever."""
        cursor = "0-0"
        while True:
            cursor, requests = await _stoppable(self._inbox.requests_after(cursor))
            for request in requests:
                _logger.info("Refresh is asked for id=%s names=%s", request.id, len(request.names) or "all")
                if request.dry_run:
                    session.create_task(self._answer_dry_run(request))
                else:
                    self._accept(request)

    async def answer(self) -> None:
        """Answer the refreshes that are done, or out of time."""
        for refresh in tuple(self._refreshes):
            result = self._result(refresh)
            if result is not None:
                await self._inbox.answer(result)
                self._refreshes.remove(refresh)
                _logger.info("Refresh is answered id=%s status=%s", refresh.request.id, result.status)

    def _accept(self, request: RefreshRequest) -> None:
        everything = not request.names or self._lookout.trouble is not None
        names = self._lookout.disk.lookable(request.names, self._ledger.records)
        refresh = Refresh(
            request=request,
            look=Look(self._lookout.want_scan() if everything else 0, request.names),
            before=served(self._ledger.records),
            deadline=time.monotonic() + request.timeout_seconds,
        )
        self._refreshes.append(refresh)
        self._lookout.find(names)

    async def _answer_dry_run(self, request: RefreshRequest) -> None:
        result = await preview(request, self._lookout, self._ledger.records, seq=self._ledger.seq)
        await self._inbox.answer(result)

    def _result(self, refresh: Refresh) -> RefreshResult | None:
        """Return the answer to `refresh` where it is due."""
        failure, trouble = self._lookout.scans.failure, self._lookout.trouble
        if trouble is not None and failure is not None and failure.number >= refresh.look.scan:
            return failed(refresh.request, trouble)
        out_of_time = refresh.look.awaited is not None and time.monotonic() >= refresh.deadline
        if self.is_over(refresh.look) or out_of_time:
            return answer(refresh.request, refresh.before, self._ledger.records, seq=self._ledger.seq)
        return None

    def _is_open(self, name: str) -> bool:
        if self._lookout.is_open(name):
            return True
        return name in self._lookout.disk.absent and not self._is_held(name)


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
