"""Keeps what is known of the prefix up to date: hints, scans and examinations, at once and in order.

A hint or a scan only says which names to look at. Names are examined in threads, a few at a time, hinted
ones first and each within a time budget, so that one huge adapter, or a first scan of thousands, does not
keep a finished one waiting. What comes back is kept in `disk`; the names it concerns are in `touched` until
the watcher has published them.

Not here: what is published (`watcher`). Everything here runs in the event loop, but for the looking itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import DiscoveryError
from loradrop.watcher.monitor.batch import Answers, Examiner
from loradrop.watcher.monitor.evaluation import Question
from loradrop.watcher.monitor.examiner_pool import Batches
from loradrop.watcher.monitor.rehash_schedule import Verification
from loradrop.watcher.monitor.scan_schedule import Scans
from loradrop.watcher.monitor.work_queue import Agenda
from loradrop.watcher.notify.notifier import Hint
from loradrop.watcher.notify.selection import notifications_for
from loradrop.watcher.prefix.filesystem import filesystem_type, is_shared
from loradrop.watcher.prefix.findings import Absent
from loradrop.watcher.prefix.scan import RootIdentity, Scan, scan
from loradrop.watcher.settings import Settings
from loradrop.watcher.state.conditions import AWAY, SLOW, Health
from loradrop.watcher.state.counters import Tally
from loradrop.watcher.state.prefix_state import Disk

_logger = logging.getLogger(__name__)

_BATCH = 64
_MANY = 500
_SLOW_SECONDS = 60.0
"""A look that takes longer than this waits for a disk that does not answer."""


class Lookout:
    """One prefix being looked at. `bell` rings when there is something to do or to publish."""

    def __init__(self, settings: Settings, examiner: Examiner) -> None:
        """Know nothing yet; `turn` begins."""
        self.bell = asyncio.Event()
        self.disk = Disk(str(settings.prefix), settings.removal)
        self.agenda = Agenda()
        self.scans = Scans(settings.interval_seconds)
        self.health = Health()
        self.tally = Tally()
        self.touched: set[str] = set()
        self.last_scan: tuple[datetime, float] | None = None
        self.known: Callable[[], Collection[str]] = lambda: ()
        self.is_hurried: Callable[[str], bool] = lambda _name: False
        self.is_confirmed: Callable[[], bool] = lambda: False
        self.batches = Batches(examiner, settings.threads)
        self.notifications = notifications_for(settings, on_hint=self.hear, on_lost=self.hear_lost)
        self._settings = settings
        self._examiner = examiner
        self._blocked = False
        self._heals_notifier: int | None = None
        self._touches_all: int | None = None
        self._verification = Verification(settings.verify_interval_seconds)
        self._note_filesystem()

    @property
    def trouble(self) -> Reason | None:
        """Why the prefix cannot be looked at, or None where it can."""
        return self.scans.failure.reason if self._blocked and self.scans.failure else None

    def want_scan(self) -> int:
        """Scan everything as soon as possible; return the number of the first scan that begins after now."""
        self.bell.set()
        return self.scans.want()

    def find(self, names: Iterable[str]) -> None:
        """Look at `names` as soon as possible."""
        self.agenda.find(names)
        self.bell.set()

    def look_anew(self) -> int:
        """Scan, and take everything for touched that is still as it was known; return the scan's number.

        The catalog may hold anything now, and what was known may be long out of date.
        """
        self._touches_all = self.want_scan()
        return self._touches_all

    def hear(self, hint: Hint) -> None:
        """Take a hint."""
        self.tally.notifications += 1
        name = hint.name
        if name is None:
            self.want_scan()
            return
        if self.disk.is_unsettled(name) and self.agenda.is_only_scheduled(name) and not hint.arrived:
            self.tally.coalesced += 1
            return  # the look that is due anyway will tell, so that a storm of hints costs nothing
        self.tally.coalesced += self.agenda.is_hinted(name)
        self.tally.hinted(name, time.monotonic())
        if not self.agenda.hint(name, arrived=hint.arrived):
            self.want_scan()
        self.bell.set()

    def hear_lost(self, reason: Reason | None) -> None:
        """Take note that hints have stopped, or come again: what they missed shows in the next scan."""
        if reason is None:
            self._heals_notifier = self.want_scan()
        else:
            self._heals_notifier = None
            self.health.set("notifier", reason)

    def turn(self, tasks: asyncio.TaskGroup) -> None:
        """Start what is due, in `tasks`."""
        now = time.monotonic()
        self.agenda.wake(now)
        if _is_due(self._verification.next_due(), now):
            self._verification.begin(self.disk.findings)
            self.agenda.find(self.disk.findings)
        if _is_due(self.scans.next_due(), now):
            tasks.create_task(self._scan(self.scans.begin()))
        while not self._blocked and self.batches.has_room(hinted=True):
            names = self.agenda.take(_BATCH, only_hinted=not self.batches.has_room(hinted=False))
            if not names:
                return
            questions = self._questions(names)
            tasks.create_task(self._take_answers(questions, self.batches.examine(questions)))

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) `turn` has something to do without the bell."""
        times = (self.agenda.next_due(), self.scans.next_due(), self._verification.next_due())
        return min((at for at in times if at is not None), default=None)

    def waiting(self) -> set[str]:
        """Return the names that are being looked at, are to be looked at, or have not settled."""
        unsettled = {name for name in self.disk.findings if self.disk.is_unsettled(name)}
        return self.agenda.waiting() | unsettled | self.disk.absent.keys()

    def is_open(self, name: str) -> bool:
        """Return whether looking at `name` once more may soon tell something else."""
        return self.agenda.is_waiting(name) or name in self.touched or self.disk.is_unsettled(name)

    def look_at_all(self) -> Scan:
        """Scan the prefix once; to be called in a thread. Raises DiscoveryError."""
        return scan(self._settings.prefix, self.disk.findings, marker=self._settings.marker)

    def check_progress(self) -> None:
        """Say where the disk keeps a look waiting, and how a long first look goes on."""
        self.health.set("disk", SLOW if self.batches.longest_seconds() > _SLOW_SECONDS else None)
        waiting = self.agenda.count()
        if waiting > _MANY:
            _logger.info("Watcher is looking looked_at=%s waiting=%s", len(self.disk.findings), waiting)

    def _questions(self, names: Sequence[tuple[str, bool]]) -> list[Question]:
        self.notifications.cover(name for name, _ in names)
        self.health.set("coverage", self.notifications.blind)
        return [
            Question(
                name, self.disk.findings.get(name), arrived=arrived, verify=self._verification.wants(name)
            )
            for name, arrived in names
        ]

    async def _take_answers(self, questions: list[Question], examined: asyncio.Future[Answers]) -> None:
        try:
            answers = await examined
        finally:
            for question in questions:
                self.agenda.done(question.name)
            self.bell.set()
        self._put_back(answers.left if answers.error is None else questions)
        if answers.error is not None:
            self._cannot_look(answers.error, 0)
        elif answers.identity is not None:
            self._learn(answers, answers.identity)

    def _put_back(self, questions: Iterable[Question]) -> None:
        for question in questions:
            if question.arrived and not self.agenda.is_waiting(question.name):
                self.agenda.hint(question.name, arrived=True)
            else:
                self.agenda.find([question.name])

    def _learn(self, answers: Answers, identity: RootIdentity) -> None:
        if self.disk.arrive(identity):
            self._note_filesystem()
            self.want_scan()
        if answers.listed is not None:
            self.disk.compare(answers.listed, self.known())
        self.tally.examined += len(answers.found)
        self.tally.examined_seconds += answers.wall_seconds
        self.tally.digested_bytes += answers.hashed_bytes
        for name, examined in answers.found.items():
            self._verification.done(name)
            if examined is self.disk.findings.get(name):
                self.tally.forget(name)
            if isinstance(examined, Absent) and not self.disk.is_known(name) and name not in self.known():
                self.tally.forget(name)
                self.disk.forget(name)
                continue
            self.agenda.schedule(name, self.disk.learn(name, examined, hurried=self.is_hurried(name)))
            self.touched.add(name)
            self.touched.update(self.disk.neighbours(name))

    async def _scan(self, number: int) -> None:
        try:
            found, seconds = await self.batches.scan(self.look_at_all)
        except DiscoveryError as error:
            self._cannot_look(error, number)
        else:
            is_first = self.last_scan is None
            self.last_scan = (datetime.now(UTC), seconds)
            self.tally.scan_seconds.observe(seconds)
            self.tally.scan_changed += len(found.changed)
            self._take_in(found, number)
            if is_first:
                self.health.on_change()  # people wait to hear that there was a first look
        self.bell.set()

    def _take_in(self, found: Scan, number: int) -> None:
        self._blocked = False
        self.scans.succeed(number)
        if self.disk.arrive(found.identity):
            self._note_filesystem()
        self.disk.compare(found.names, self.known())
        self.disk.expect(found.names)
        if self.disk.away and (not self.disk.missing or self.is_confirmed()):
            self.disk.settle_in(found.identity)
        if self._touches_all is not None and number >= self._touches_all:
            self._touches_all = None
            self.touched |= self.disk.findings.keys() & found.names - set(found.changed)
        for names in (found.changed, self.notifications.uncovered(found.names), self.disk.missing):
            self.agenda.find(names)
        self.agenda.find([*self.disk.unreadable, *self.disk.absent])
        self.health.set("prefix", None)
        self.health.set("device", AWAY if self.disk.away else None)
        if self._heals_notifier is not None and number >= self._heals_notifier:
            self.health.set("notifier", None)
        _logger.debug("Scanned the prefix adapters=%s changed=%s", len(found.names), len(found.changed))

    def _cannot_look(self, error: DiscoveryError, number: int) -> None:
        self._blocked = True
        self.tally.scan_failures += 1
        self.scans.fail(number, error.reason)
        self.health.set("prefix", error.reason)

    def _note_filesystem(self) -> None:
        self._examiner.trust_times(not is_shared(filesystem_type(self._settings.prefix)))


def _is_due(at: float | None, now: float) -> bool:
    return at is not None and at <= now
