"""Says what this worker has, to Redis: at once when something changes, and as a heartbeat.

Reports are gathered for a moment, so that a thousand changes are one write. Redis away costs reports,
nothing else: when it is back, everything is written anew. So it is every now and then in any case, since a
Redis that lost its data and came back at once looks like one that was never away.
"""

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Reports
from loradrop.catalog.store.reports import HEARTBEAT
from loradrop.worker import metrics
from loradrop.worker.engine.nan_monitor import NanAlarm
from loradrop.worker.fleet.catalog_follower import Consumer
from loradrop.worker.serving.status import Standing

_log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.02
_ANEW_SECONDS = 10.0


class Reporter:
    """Reports one API process. Keeps true: what Redis says of it is at most a heartbeat old."""

    def __init__(
        self,
        reports: Reports,
        identity: WorkerStatus,
        *,
        standing: Standing,
        consumer: Consumer,
        alarm: NanAlarm,
    ) -> None:
        """Report as `identity`, whose changing parts are filled in each time."""
        self._reports = reports
        self._identity = identity
        self._standing = standing
        self._consumer = consumer
        self._alarm = alarm

    def status(self) -> WorkerStatus:
        """Return the worker as it is now, and show the same in the metrics."""
        position = self._consumer.position
        counts = self._standing.counts()
        degraded = self._alarm.reason()
        metrics.show(
            counts=counts,
            totals=self._standing.totals(),
            seq=position.seq,
            stale=position.stale is not None,
            degraded=degraded is not None,
        )
        return replace(
            self._identity,
            epoch=position.epoch,
            observed_seq=position.seq,
            last_heartbeat=datetime.now(UTC),
            counts=counts,
            degraded=degraded,
        )

    async def run(self) -> None:
        """Report for ever; the last thing it does is to say that the worker is gone."""
        clock = asyncio.get_running_loop().time
        anew_at = clock()
        try:
            while True:
                changes = self._standing.take_changes()
                try:
                    if clock() >= anew_at:
                        await self._reports.report_worker(
                            self.status(), self._standing.picture(), everything=True
                        )
                        anew_at = clock() + _ANEW_SECONDS
                    else:
                        await self._reports.report_worker(self.status(), changes)
                except LoradropError as error:
                    anew_at = clock()
                    _log.debug("report not delivered error=%s", error)
                await self._next()
        finally:
            with contextlib.suppress(LoradropError):  # it expires by itself
                await self._reports.forget_worker(self._identity.id)

    async def _next(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT.total_seconds()):
                await self._standing.bell.wait()
                await asyncio.sleep(_GATHER_SECONDS)
