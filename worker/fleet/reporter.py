"""Reports what this worker has to Redis: at once when something changes, and as a heartbeat.

Changes are gathered for a moment, so that a thousand of them are one write. While Redis is away only reports
are lost: when it is back, everything is written anew. So it is every ten seconds in any case, since a Redis
that lost its data and came back at once cannot be told from one that was never away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import LoradropError
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Reports
from loradrop.catalog.store.reports import HEARTBEAT
from loradrop.worker import metrics
from loradrop.worker.fleet.catalog_follower import Position
from loradrop.worker.serving.status import AdapterStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReporterTimings:
    """How often a worker reports."""

    heartbeat_seconds: float = HEARTBEAT.total_seconds()
    everything_seconds: float = 10.0
    gather_seconds: float = 0.02


_TIMINGS = ReporterTimings()


class Reporter:
    """Reports one API process. Invariant: what Redis says of it is at most a heartbeat old."""

    def __init__(
        self,
        reports: Reports,
        identity: WorkerStatus,
        *,
        adapters: AdapterStatus,
        position: Callable[[], Position],
        degraded: Callable[[], Reason | None],
        timings: ReporterTimings = _TIMINGS,
    ) -> None:
        """Report as `identity`, whose changing parts are filled in each time.

        `degraded` returns what is wrong with the whole worker, or None.
        """
        self._reports = reports
        self._identity = identity
        self._adapters = adapters
        self._position = position
        self._degraded = degraded
        self._timings = timings
        self._was_degraded = False

    async def run(self) -> None:
        """Report for ever; at the end, remove the worker from Redis."""
        clock = asyncio.get_running_loop().time
        everything_at = clock()
        try:
            while True:
                changes = self._adapters.take_changes()
                status = self._status()
                self._show(status)
                try:
                    if clock() >= everything_at:
                        snapshot = self._adapters.snapshot()
                        await self._reports.report_worker(status, snapshot, everything=True)
                        everything_at = clock() + self._timings.everything_seconds
                    else:
                        await self._reports.report_worker(status, changes)
                except LoradropError as error:
                    everything_at = clock()
                    _log.debug("report not delivered error=%s", error)
                await self._wait()
        finally:
            with contextlib.suppress(LoradropError):  # it expires by itself
                await self._reports.forget_worker(self._identity.id)

    def _status(self) -> WorkerStatus:
        position = self._position()
        return replace(
            self._identity,
            epoch=position.epoch,
            observed_seq=position.seq,
            last_heartbeat=datetime.now(UTC),
            counts=self._adapters.counts(),
            degraded=self._degraded(),
        )

    def _show(self, status: WorkerStatus) -> None:
        """Set the metrics to `status`, and log a server that has become degraded."""
        metrics.show(
            counts=status.counts,
            totals=self._adapters.totals(),
            seq=status.observed_seq,
            stale=self._position().stale is not None,
            degraded=status.degraded is not None,
        )
        if status.degraded is not None and not self._was_degraded:
            _log.error("worker is degraded reason=%s", status.degraded)
        self._was_degraded = status.degraded is not None

    async def _wait(self) -> None:
        """Wait for changes, gathered for a moment, or for the next heartbeat."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timings.heartbeat_seconds):
                await self._adapters.wakeup.wait()
                await asyncio.sleep(self._timings.gather_seconds)
