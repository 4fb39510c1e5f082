"""Keeps the state of one prefix up to date: hints, scans and examinations, at once and in order.

A hint or a scan only says which names to examine. Names are examined in threads, a batch at a time, hinted
ones first and each within a time budget, so that neither one huge adapter nor a first scan of thousands keeps
a finished one waiting.

    notifier ── hint ──────────────┐
    scan ────── changed, missing ──┼─► work queue ─► examiner pool ─► state
    due time ── settling, absent ──┘       ▲                            │
                                           └────── look again at ◄──────┘

Everything here runs in the event loop, but for the reading itself. Not here: what is published (`watcher`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from loradrop.catalog.status import WatcherMode
from loradrop.watcher.monitor.batch import BatchResult, Examiner
from loradrop.watcher.monitor.evaluation import ExamineRequest
from loradrop.watcher.monitor.examiner_pool import ExaminerPool
from loradrop.watcher.monitor.hint_intake import HintIntake
from loradrop.watcher.monitor.rehash_schedule import RehashSchedule
from loradrop.watcher.monitor.scan_schedule import ScanFailure
from loradrop.watcher.monitor.scanner import Scanner
from loradrop.watcher.monitor.work_queue import WorkQueue
from loradrop.watcher.notify.selection import notifications_for
from loradrop.watcher.prefix.scan import Scan
from loradrop.watcher.settings import Settings
from loradrop.watcher.state.conditions import SLOW, Conditions
from loradrop.watcher.state.counters import Counters
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.timings import Timings
from loradrop.watcher.validation.inspection import Rules

_logger = logging.getLogger(__name__)

_BATCH = 64
_MANY = 500


class Monitor:
    """Watches one prefix. `wakeup` is set when work or unpublished changes exist."""

    def __init__(
        self,
        settings: Settings,
        state: PrefixState,
        wakeup: asyncio.Event,
        *,
        conditions: Conditions,
        counters: Counters,
        timings: Timings,
    ) -> None:
        """Keep `state` up to date once `start_due` is called; call it in the event loop."""
        self._state = state
        self._wakeup = wakeup
        self._conditions = conditions
        self._counters = counters
        self._timings = timings
        self._stopping = threading.Event()
        rules = Rules(settings.roots, settings.allow_pickle, self._stopping.is_set)
        examiner = Examiner(settings.prefix, rules, settings.settle, marker=settings.marker)
        self._pool = ExaminerPool(examiner, settings.threads)
        self._scanner = Scanner(settings, self._pool, state, conditions=conditions, counters=counters)
        self._queue = WorkQueue()
        self._rehashes = RehashSchedule(settings.verify_interval_seconds, now=time.monotonic())
        intake = HintIntake(state, self._queue, self._scanner, wakeup, counters=counters)
        self._notifications = notifications_for(
            settings, timings, on_hint=intake.hear, on_lost=intake.hear_lost
        )

    @property
    def mode(self) -> WatcherMode:
        """How changes are noticed at the moment."""
        return self._notifications.mode

    @property
    def scans_done(self) -> int:
        """The number of the last scan that told the whole truth."""
        return self._scanner.done

    @property
    def last_scan(self) -> tuple[datetime, float] | None:
        """When the last scan ended, and how many seconds it took."""
        return self._scanner.last_scan

    @property
    def failure(self) -> ScanFailure | None:
        """Why nothing can be examined, and which scan found that; None where all is well."""
        return self._scanner.failure

    @property
    def _may_examine(self) -> bool:
        return self.failure is None and self._state.root.is_listed

    async def follow_notifications(self) -> None:
        """Take hints for ever."""
        await self._notifications.run()

    def close(self) -> None:
        """Begin nothing more, and end long reads."""
        self._stopping.set()
        self._pool.close()

    def begin_session(self) -> int:
        """Scan, and make dirty what that finds unchanged, too; return the scan's number.

        The catalog may hold anything now, and what was known may be long out of date.
        """
        self._wakeup.set()
        return self._scanner.begin_session()

    def want_scan(self) -> int:
        """Scan everything as soon as possible; return the number of the first scan that begins after now."""
        self._wakeup.set()
        return self._scanner.want()

    def examine_soon(self, names: Iterable[str]) -> None:
        """Examine `names` as soon as nothing hinted is left."""
        self._queue.add_low_priority(names)
        self._wakeup.set()

    def examine_at(self, times: Mapping[str, float]) -> None:
        """Examine each name again at its time, where that is not under way anyhow."""
        for name, at in times.items():
            if not self._queue.is_active(name):  # it may have to wait for the prefix to come back
                self._queue.add_after(name, at)

    def start_due(self, tasks: asyncio.TaskGroup) -> None:
        """Start what is due, in `tasks`."""
        now = time.monotonic()
        self._queue.advance(now)
        if self._rehashes.is_due(now):
            names = [name for name in self._state.names if self._state.has_finding(name)]
            self._rehashes.begin(names, now=now)
            self._queue.add_low_priority(names)
        if self._scanner.is_due(now):
            tasks.create_task(self._scan(self._scanner.begin()))
        while self._may_examine and self._pool.has_room(hinted=True):
            names = self._queue.get(_BATCH, only_high=not self._pool.has_room(hinted=False))
            if not names:
                return
            requests = self._requests(names)
            tasks.create_task(self._take_result(requests, self._pool.examine(requests)))

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) `start_due` has something to do without `wakeup`."""
        times = (self._queue.next_due(), self._scanner.next_due(), self._rehashes.next_due())
        return min((at for at in times if at is not None), default=None)

    def pending(self) -> set[str]:
        """Return the names that are being examined or will be, or that are to be published."""
        return self._queue.all() | self._state.dirty.keys()

    def is_open(self, name: str) -> bool:
        """Return whether `name` is being examined, has to settle, to be published, or to be proven gone."""
        return self._queue.is_active(name) or self._state.is_open(name)

    async def scan(self) -> Scan:
        """Scan the prefix once, for a dry run; raises DiscoveryError."""
        found, _ = await self._pool.scan(self._scanner.scan_now)
        return found

    async def list_names(self) -> frozenset[str]:
        """Return the names of all that is in the prefix; raises DiscoveryError."""
        found, _ = await self._pool.scan(self._scanner.list_now)
        return found

    async def examine(self, requests: Sequence[ExamineRequest]) -> BatchResult:
        """Examine some of `requests`, for a dry run."""
        return await self._pool.examine(requests)

    def check_progress(self) -> None:
        """Note where the disk keeps a thread waiting, and log how a long first scan goes on."""
        is_slow = self._pool.longest_seconds() > self._timings.slow_seconds
        self._conditions.set("disk", SLOW if is_slow else None)
        if len(self._queue) > _MANY:
            _logger.info("Watcher is examining known=%s waiting=%s", len(self._state.names), len(self._queue))

    def _requests(self, names: Sequence[str]) -> list[ExamineRequest]:
        self._notifications.cover(names)  # before it is read, so that nothing falls between
        self._conditions.set("coverage", self._notifications.blind)
        return [
            ExamineRequest(
                name,
                self._state.finding(name),
                arrived=self._state.take_arrived(name),
                rehash=self._rehashes.wants(name),
            )
            for name in names
        ]

    async def _take_result(
        self, requests: list[ExamineRequest], examining: asyncio.Future[BatchResult]
    ) -> None:
        try:
            result = await examining
        finally:
            for request in requests:
                self._queue.done(request.name)
            self._wakeup.set()
        if result.error is not None:
            self._scanner.cannot_read(result.error)
        elif result.identity is not None and self._state.observe_root(result.identity):
            self._scanner.want()  # nothing is learnt of a directory before it is listed
        else:
            requests = list(result.left)
            self._learn(result)
        self._put_back(requests)

    def _put_back(self, requests: Iterable[ExamineRequest]) -> None:
        for request in requests:
            name = request.name
            if request.arrived and not self._queue.is_active(name) and self._queue.add(name):
                self._state.put_back_arrived(name)
            else:
                self._queue.add_low_priority([name])

    def _learn(self, result: BatchResult) -> None:
        if result.listed is not None:
            self._state.observe_listing(result.listed)
        self._counters.examined += len(result.found)
        self._counters.examined_seconds += result.wall_seconds
        self._counters.digested_bytes += result.hashed_bytes
        now = time.monotonic()
        for name, examined in result.found.items():
            self._rehashes.done(name)
            self._queue.add_after(name, self._state.learn(name, examined, now=now))

    async def _scan(self, number: int) -> None:
        found = await self._scanner.run(number)
        if found is not None:
            uncovered = self._notifications.uncovered(found.names)
            for names in (found.changed, uncovered, self._state.doubtful()):
                self._queue.add_low_priority(names)
        self._wakeup.set()
