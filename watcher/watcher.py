"""The watcher: takes the lease, compares the disk with the catalog, publishes what differs, for ever.

One task owns the state; notifications, scans, examinations and refresh requests only ring its bell. Events
are hints and the disk decides, so anything may be repeated, and whatever goes wrong has one answer: lead
again, list again, look again, publish the difference.

    run ── notifications
        └─ sessions: lead, list, then ── turns: look, publish, answer refreshes
                                      ├─ heartbeats
                                      └─ refresh requests

Not here: looking at the disk (`lookout`), writing the catalog (`ledger`), signals and flags (`__main__`).
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from loradrop.catalog.adapter import Adapter, AdapterState, Reason
from loradrop.catalog.errors import CatalogDenied, CatalogRefused, LeaseHeld, LeaseLost, LoradropError
from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.status import WatcherStatus
from loradrop.catalog.store import Connection, Refreshes, Withdrawal
from loradrop.watcher.monitor.batch import Examiner
from loradrop.watcher.monitor.monitor import Lookout
from loradrop.watcher.publish.catalog_mirror import Ledger
from loradrop.watcher.publish.owner import own_id
from loradrop.watcher.refresh.handler import Desk
from loradrop.watcher.refresh.refresh import Look
from loradrop.watcher.settings import Settings
from loradrop.watcher.state.changes import changed_records, withdrawals
from loradrop.watcher.state.counters import Tally
from loradrop.watcher.validation.inspection import Rules

_logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
_DISTURBED = Look(0)
"""Stands for a first look that has to be made again."""
_STANDBY_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.8
_LAST_PAUSE_SECONDS = 3.0
"""However long Redis was away, what was dropped meanwhile is to be served within 5 s of its return."""

_RESIGN_SECONDS = 1.0
_PUBLISHED_AT_ONCE = 1_000


class Watcher:
    """Publishes one prefix to one pool.

    Keeps true: a revision is published only where its bytes were complete, valid and at rest, and withdrawn
    only where it is proven gone.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        """Watch what `settings` name and publish over `connection`, once `run` is called in an event loop."""
        self._settings = settings
        self._stopping = threading.Event()
        self._ledger = Ledger(connection, owner=own_id())
        self._held: frozenset[str] = frozenset()
        self._first_look: Look | None = None
        self._status_changed = asyncio.Event()
        roots = Roots((settings.prefix, *settings.allow_symlinks_to))
        rules = Rules(roots, settings.allow_pickle, self._stopping.is_set)
        examiner = Examiner(settings.prefix, rules, settings.settle, marker=settings.marker)
        self._lookout = Lookout(settings, examiner)
        self._lookout.known = lambda: self._ledger.remembered
        self._desk = Desk(
            Refreshes(connection), self._lookout, self._ledger, is_held=lambda name: name in self._held
        )
        self._lookout.is_hurried = self._desk.is_hurried
        self._lookout.is_confirmed = self._desk.is_confirmed
        self._lookout.health.on_change = self._status_changed.set

    async def run(self) -> None:
        """Watch and publish until cancelled; then stop at once and give the lease back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lookout.notifications.run())
                await self._sessions(tasks)
        finally:
            self._stopping.set()
            self._lookout.batches.close()
            with suppress(LoradropError, TimeoutError):
                async with asyncio.timeout(_RESIGN_SECONDS):
                    await self._ledger.resign()
            _logger.info("Watcher has stopped owner=%s", self._ledger.owner)

    @property
    def tally(self) -> Tally:
        """What this watcher has counted."""
        return self._lookout.tally

    def reasons(self) -> dict[tuple[AdapterState, str], int]:
        """Return how many adapters are in each state for each reason code."""
        return self._ledger.reasons

    def status(self) -> WatcherStatus:
        """Return what this watcher says about itself now."""
        last_scan_at, last_scan_seconds = self._lookout.last_scan or (None, None)
        return WatcherStatus(
            owner=self._ledger.owner,
            prefix=str(self._settings.prefix),
            mode=self._lookout.notifications.mode,
            heartbeat_at=datetime.now(UTC),
            degraded=self._lookout.health.reason,
            last_scan_at=last_scan_at,
            last_scan_seconds=last_scan_seconds,
            interval_seconds=self._settings.interval_seconds,
            counts=self._ledger.counts,
        )

    async def _sessions(self, tasks: asyncio.TaskGroup) -> None:
        """Lead again whenever leading ended, with the pause its end calls for."""
        pause_seconds, told = _FIRST_PAUSE_SECONDS, ""
        while True:
            started = time.monotonic()
            error = await self._session(tasks)
            level = _level(error) if error.message != told else logging.DEBUG
            told = error.message
            if time.monotonic() - started > _LAST_PAUSE_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            match error:
                case LeaseHeld():
                    _logger.log(level, "Watcher stands by owner=%s", error.owner)
                    await self._stand_by()
                case LeaseLost():
                    _logger.log(level, "Watcher leads again reason=%s", error.reason)
                    await asyncio.sleep(_FIRST_PAUSE_SECONDS * random.uniform(0, 0.1))
                case _:
                    _logger.log(level, "Watcher waits for Redis reason=%s", error.reason)
                    await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))
                    pause_seconds = min(pause_seconds * 2, _LAST_PAUSE_SECONDS)

    async def _stand_by(self) -> None:
        try:
            await self._ledger.stand_by(_STANDBY_SECONDS)
        except LoradropError as error:
            _logger.debug("Watcher cannot follow while it stands by reason=%s", error.reason)
            await asyncio.sleep(_STANDBY_SECONDS)

    async def _session(self, tasks: asyncio.TaskGroup) -> LoradropError:
        """Lead and publish until something ends it, and return what did."""
        ended: LoradropError | None = None
        try:
            await self._ledger.lead()
            self._desk.clear()
            self._lookout.touched.clear()
            self._first_look = Look(self._lookout.look_anew())
            async with asyncio.TaskGroup() as session:
                session.create_task(self._report())
                session.create_task(self._desk.hear(session))
                session.create_task(self._turns(tasks))
        except* LoradropError as group:
            ended = _first(group)
        assert ended is not None  # turns go on until an error
        return ended

    async def _turns(self, tasks: asyncio.TaskGroup) -> None:
        lookout = self._lookout
        while True:
            lookout.bell.clear()
            lookout.turn(tasks)
            await self._publish()
            await self._desk.answer()
            await self._complete()
            if not lookout.touched:
                await self._wait()

    async def _complete(self) -> None:
        """Say once in each session that all there is has been published: before, a name may only be late.

        What vanishes in the middle of the first look may come back with names that nobody knows yet.
        """
        if self._first_look is None:
            return
        if self._held:
            self._first_look = _DISTURBED
        elif self._first_look is _DISTURBED:
            self._first_look = Look(self._lookout.want_scan())
        elif self._desk.is_over(self._first_look):
            self._first_look = None
            await self._ledger.complete()

    async def _wait(self) -> None:
        times = [at for at in (self._lookout.next_due(), self._desk.next_due()) if at is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._lookout.bell.wait()

    async def _publish(self) -> None:
        """Write what is known of the touched names, and withdraw the names proven gone."""
        lookout, records, remembered = self._lookout, self._ledger.records, self._ledger.remembered
        names = [lookout.touched.pop() for _ in range(min(len(lookout.touched), _PUBLISHED_AT_ONCE))]
        changes: list[Adapter | Withdrawal] = []
        changes += changed_records(lookout.disk, names, records, remembered, now=datetime.now(UTC))
        removals = lookout.disk.removals(remembered, confirmed=self._desk.is_confirmed())
        self._hold(removals.held)
        for name, at in removals.look_again.items():
            if not lookout.agenda.is_waiting(name):  # it may have to wait for the prefix to come back
                lookout.agenda.schedule(name, at)
        changes += withdrawals(removals.proven, records)
        if changes:
            await self._ledger.write(changes)
            self._note_published(changes)
        self._ledger.forget(removals.proven)
        for name in removals.proven:
            lookout.touched.update(lookout.disk.neighbours(name))
            lookout.disk.forget(name)

    def _note_published(self, changes: Sequence[Adapter | Withdrawal]) -> None:
        for change in changes:
            if isinstance(change, Withdrawal) or change.state is AdapterState.READY:
                self._lookout.tally.published(change.name, time.monotonic())

    def _hold(self, names: tuple[str, ...]) -> None:
        self._held = frozenset(names)
        grace_seconds = self._settings.removal.mass_grace_seconds
        reason = Reason(
            "mass_removal",
            f"{len(names)} adapters vanished at once. They stay served for {grace_seconds:g} s;"
            " `loradrop refresh --confirm-removals` says that this is meant.",
        )
        self._lookout.health.set("removal", reason if names else None)

    async def _report(self) -> None:
        reported = time.monotonic()
        while True:
            self._status_changed.clear()
            self._lookout.check_progress()
            now, since = time.monotonic(), reported
            if self._lookout.health.reason is not None:
                self._lookout.tally.degraded_seconds += now - since
            reported = now
            await self._ledger.report(self.status())
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._status_changed.wait()


def _level(error: LoradropError) -> int:
    """Return how loud to say that a session ended: who stands by is well, who is refused needs a person."""
    if isinstance(error, LeaseHeld):
        return logging.INFO
    return logging.ERROR if isinstance(error, CatalogDenied | CatalogRefused) else logging.WARNING


def _first(group: BaseExceptionGroup[LoradropError]) -> LoradropError:
    error = group.exceptions[0]
    return error if isinstance(error, LoradropError) else _first(error)
