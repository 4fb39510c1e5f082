"""The watcher: takes the lease, compares the prefix with the catalog, publishes what differs, for ever.

One task owns the state; notifications, scans, examinations and refresh requests only set its `wakeup`. Events
are hints and the disk decides, so anything may be repeated, and every failure has one answer: lead again,
list again, scan again, publish the difference.

    run ── notifications
        └─ sessions: lead, list, then ── turns: examine, plan, write, commit, answer refreshes
                                      ├─ heartbeats
                                      └─ refresh requests

A session, worked through:

    lead        take the lease, or stand by and follow while another watcher holds it
    list        the mirror holds what Redis holds; whatever differs from the prefix is to be published
    scan        the first scan of the session makes every name dirty
    turns       plan -> write -> commit, until everything is published: the catalog is complete
    an error    Redis away, lease lost, catalog replaced: nothing uncommitted is kept, and all begins again

Not here: reading the prefix (`monitor`), writing the catalog (`publish`), signals and flags (`__main__`).
"""

import asyncio
import logging
import random
import time
from contextlib import suppress
from datetime import UTC, datetime

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.backoff import HALF_JITTER, Backoff
from loradrop.catalog.errors import LeaseHeld, LeaseLost, LoradropError
from loradrop.catalog.printable import printable
from loradrop.catalog.status import WatcherStatus
from loradrop.catalog.store import Connection, Refreshes
from loradrop.watcher.exception_groups import first_of, in_own_task
from loradrop.watcher.initial_sync import InitialSync
from loradrop.watcher.monitor.monitor import Monitor
from loradrop.watcher.prefix.findings import RootIdentity
from loradrop.watcher.publish.catalog_mirror import CatalogMirror
from loradrop.watcher.publish.owner import own_id
from loradrop.watcher.refresh.handler import RefreshHandler
from loradrop.watcher.session_end import SessionFailed, level_of
from loradrop.watcher.settings import Settings
from loradrop.watcher.state.conditions import AWAY, Conditions, mass_removal
from loradrop.watcher.state.counters import Counters
from loradrop.watcher.state.planning import plan
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.timings import Timings

_logger = logging.getLogger(__name__)


class Watcher:
    """Publishes one prefix to one pool.

    Invariant: a revision is published only where its bytes were complete, valid and at rest, and withdrawn
    only where it is proven gone.
    """

    def __init__(self, settings: Settings, connection: Connection, timings: Timings | None = None) -> None:
        """Watch what `settings` name and publish over `connection`, once `run` is called in an event loop."""
        self._settings = settings
        self._timings = timings or Timings()
        self._wakeup = asyncio.Event()
        self._status_changed = asyncio.Event()
        self.counters = Counters()
        self._conditions = Conditions(self._status_changed.set)
        self._state = PrefixState(str(settings.prefix), settings.removal)
        self._mirror = CatalogMirror(connection, owner=own_id())
        self._monitor = Monitor(
            settings,
            self._state,
            self._wakeup,
            conditions=self._conditions,
            counters=self.counters,
            timings=self._timings,
        )
        self._refreshes = RefreshHandler(Refreshes(connection), self._monitor, self._state, self._mirror)
        self._initial_sync = InitialSync()

    async def run(self) -> None:
        """Watch and publish until cancelled; then stop at once and give the lease back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._monitor.follow_notifications())
                await self._sessions(tasks)
        finally:
            self._monitor.close()
            with suppress(LoradropError, TimeoutError):
                async with asyncio.timeout(self._timings.resign_seconds):
                    await self._mirror.resign()
            _logger.info("Watcher has stopped owner=%s", self._mirror.owner)

    def reasons(self) -> dict[tuple[AdapterState, str], int]:
        """Return how many adapters are in each state for each reason code."""
        return self._mirror.reasons

    def status(self) -> WatcherStatus:
        """Return what this watcher reports about itself now."""
        last_scan_at, last_scan_seconds = self._monitor.last_scan or (None, None)
        return WatcherStatus(
            owner=self._mirror.owner,
            prefix=str(self._settings.prefix),
            mode=self._monitor.mode,
            heartbeat_at=datetime.now(UTC),
            degraded=self._conditions.reason,
            last_scan_at=last_scan_at,
            last_scan_seconds=last_scan_seconds,
            interval_seconds=self._settings.interval_seconds,
            counts=self._mirror.counts,
        )

    async def _sessions(self, tasks: asyncio.TaskGroup) -> None:
        """Lead again whenever a session ended, with the pause its end calls for."""
        timings = self._timings
        backoff = Backoff(
            timings.first_pause_seconds,
            timings.last_pause_seconds,
            healthy_seconds=timings.last_pause_seconds,
            jitter=HALF_JITTER,
        )
        logged = ""
        while True:
            started = time.monotonic()
            error = await in_own_task(self._session(tasks))
            lasted_seconds = time.monotonic() - started
            level = level_of(error) if error.message != logged else logging.DEBUG
            logged = error.message
            match error:
                case LeaseHeld():
                    _logger.log(level, "Watcher stands by owner=%s", printable(error.owner))
                    await self._stand_by()
                case LeaseLost():
                    _logger.log(level, "Watcher leads again reason=%s", printable(str(error.reason)))
                    await asyncio.sleep(timings.first_pause_seconds * random.uniform(0, 0.1))
                case _:
                    _logger.log(level, "Watcher waits for Redis reason=%s", printable(str(error.reason)))
                    await asyncio.sleep(backoff.pause_seconds(lasted_seconds=lasted_seconds))

    async def _stand_by(self) -> None:
        try:
            await self._mirror.stand_by(self._timings.standby_seconds)
        except LoradropError as error:
            _logger.debug("Watcher cannot follow while it stands by reason=%s", printable(str(error.reason)))
            await asyncio.sleep(self._timings.standby_seconds)

    async def _session(self, tasks: asyncio.TaskGroup) -> LoradropError:
        """Lead and publish until something ends it, and return what did."""
        ended: LoradropError | None = None
        try:
            await self._mirror.lead()
            self._refreshes.clear()
            self._state.begin_session(self._mirror.remembered, RootIdentity.parse(self._mirror.root))
            self._initial_sync.begin(self._monitor.begin_session())
            async with asyncio.TaskGroup() as session:
                session.create_task(self._report())
                session.create_task(self._refreshes.take_requests(session))
                session.create_task(self._turns(tasks))
        except* LoradropError as group:
            ended = first_of(group)
        except* Exception as group:
            # Whatever was found on the disk or in Redis, the adapters are to be watched on.
            _logger.exception("Session failed")
            ended = ended or SessionFailed(first_of(group))
        assert ended is not None  # turns go on until an error
        return ended

    async def _turns(self, tasks: asyncio.TaskGroup) -> None:
        had_scan = self._monitor.last_scan is not None
        while True:
            self._wakeup.clear()
            self._monitor.start_due(tasks)
            await self._publish()
            await self._refreshes.answer()
            if self._initial_sync.advance(
                self._refreshes.advanced, disturbed=self._is_disturbed(), want_scan=self._monitor.want_scan
            ):
                await self._mirror.complete()
            if not had_scan and self._monitor.last_scan is not None:
                had_scan = True
                self._status_changed.set()  # the operator waits to hear that there was a first scan
            if not self._state.dirty:
                await self._wait()

    async def _wait(self) -> None:
        times = [at for at in (self._monitor.next_due(), self._refreshes.next_due()) if at is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wakeup.wait()

    async def _publish(self) -> None:
        """Write what has to change in the catalog, and take it for known."""
        planned = plan(
            self._state,
            self._mirror.records,
            self._mirror.remembered,
            now=datetime.now(UTC),
            is_hurried=self._refreshes.is_hurried,
            confirmed=self._refreshes.confirmed,
        )
        await self._mirror.write(planned.records.values(), [printable(name) for name in planned.removals])
        now = time.monotonic()
        for hinted_at in self._state.commit(planned):
            self.counters.publish_seconds.observe(now - hinted_at)
        self._monitor.examine_at(planned.look_again)
        await self._note_root(accepted_now=planned.accepts_root is True)
        grace_seconds = self._settings.removal.mass_grace_seconds
        held = planned.held
        self._conditions.set("removal", mass_removal(len(held), grace_seconds) if held else None)

    async def _note_root(self, *, accepted_now: bool) -> None:
        """Keep in the catalog which directory to expect, and examine what is missing in a new one."""
        root = self._state.root
        if root.is_listed:
            self._conditions.set("root", None if root.is_accepted else AWAY)
        if accepted_now:
            self._monitor.examine_soon(self._state.lost)
        if root.is_accepted and root.expected is not None:
            await self._mirror.expect_root(str(root.expected))

    def _is_disturbed(self) -> bool:
        """Return whether adapters vanished that may come back."""
        return bool(self._state.held) or not self._state.root.is_accepted

    async def _report(self) -> None:
        reported = time.monotonic()
        while True:
            self._status_changed.clear()
            self._monitor.check_progress()
            now, since = time.monotonic(), reported
            if self._conditions.reason is not None:
                self.counters.degraded_seconds += now - since
            reported = now
            await self._mirror.report(self.status())
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timings.heartbeat_seconds):
                    await self._status_changed.wait()
