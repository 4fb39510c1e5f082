"""Keeps what is known of the prefix up to date: hints, scans and examinations, at once and in order.

A hint or a scan only says which names to look at. Names are examined in threads, a few at a time, hinted
ones first and each within a time budget, so that one huge adapter, or a first scan of thousands, does not
keep a finished one waiting. What comes back is kept in `disk`; the names it concerns are in `touched` until
the watcher has published them.

Not here: what is published (`watcher`). Everything here runs in the event loop, but for the looking itself.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from catalog.adapter import Reason
from catalog.errors import DiscoveryError
from catalog.status import WatcherMode
from watcher.agenda import Agenda
from watcher.discovery import RootIdentity, Scan, scan
from watcher.disk import Disk
from watcher.examination import Answers, Examiner, Question
from watcher.findings import Absent
from watcher.health import Health
from watcher.mounts import filesystem_type, is_shared
from watcher.notifier import Hint, Notifications
from watcher.settings import Settings

_logger = logging.getLogger(__name__)

_BATCH = 64
_BUDGET_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_JITTER = (0.75, 1.25)
_AWAY = Reason(
    "prefix_device_changed",
    "Another filesystem is at the prefix now, and adapters are missing there. None is removed until it is"
    " mounted again, or until `loradrop refresh --confirm-removals` says that this is meant.",
)


class Lookout:
    """One prefix being looked at. `bell` rings when there is something to do or to publish."""

    def __init__(
        self, settings: Settings, examiner: Examiner, notifications: Notifications, executor: ThreadPoolExecutor
    ) -> None:
        """Know nothing yet; `turn` begins."""
        self.bell = asyncio.Event()
        self.disk = Disk(str(settings.prefix), settings.removal)
        self.touched: set[str] = set()
        self.health = Health()
        self.known: Callable[[], Iterable[str]] = lambda: ()
        self.is_hurried: Callable[[str], bool] = lambda _name: False
        self.scans_started = 0
        self.scans_done = 0
        self.scan_failure: tuple[int, Reason] | None = None
        self.last_scan: tuple[datetime, float] | None = None
        self.agenda = Agenda()
        self.executor = executor
        self.examiner = examiner
        self._settings = settings
        self._notifications = notifications
        self._examining = 0
        self._scanning = False
        self._scan_at: float | None = time.monotonic()
        self._verify_at = time.monotonic() + settings.verify_interval_seconds
        self._verify: set[str] = set()
        self._blocked = False
        self._heals_notifier: int | None = None
        self._note_filesystem()

    @property
    def mode(self) -> WatcherMode:
        """How changes are learned of."""
        return self._notifications.mode

    def want_scan(self) -> int:
        """Scan everything as soon as possible; return the number of the first scan that begins after now."""
        self._scan_at = time.monotonic()
        self.bell.set()
        return self.scans_started + 1

    def find(self, names: Iterable[str]) -> None:
        """Look at `names` as soon as possible."""
        self.agenda.find(names)
        self.bell.set()

    def hear(self, hint: Hint) -> None:
        """Take a hint."""
        if hint.name is None or not self.agenda.hint(hint.name, arrived=hint.arrived):
            self.want_scan()
        self.bell.set()

    def hear_lost(self, reason: Reason | None) -> None:
        """Take note that hints have stopped, or come again: what they missed shows in the next scan."""
        if reason is not None:
            self._heals_notifier = None
            self.health.trouble("notifier", reason)
        else:
            self._heals_notifier = self.want_scan()

    def turn(self, tasks: asyncio.TaskGroup) -> None:
        """Start what is due, in `tasks`."""
        now = time.monotonic()
        self.agenda.wake(now)
        self._verify_all(now)
        if self._scan_at is not None and self._scan_at <= now and not self._scanning:
            self._scanning, self._scan_at = True, None
            self.scans_started += 1
            tasks.create_task(self._scan(self.scans_started))
        if self._blocked:
            return
        while self._examining < self._settings.threads:
            # The last thread is kept for hints, so that a long first scan does not hold them up.
            reserved = self._settings.threads > 1 and self._examining == self._settings.threads - 1
            names = self.agenda.take(_BATCH, only_hinted=reserved)
            if not names:
                return
            self._examining += 1
            tasks.create_task(self._examine(self._questions(names)))

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) `turn` has something to do without the bell."""
        times = [at for at in (self.agenda.next_due(), self._scan_at if not self._scanning else None) if at]
        if self._settings.verify_interval_seconds:
            times.append(self._verify_at)
        return min(times, default=None)

    def waiting(self) -> set[str]:
        """Return the names that are being looked at, are to be looked at, or have not settled."""
        unsettled = {name for name in self.disk.findings if self.disk.is_unsettled(name)}
        return self.agenda.waiting() | unsettled | self.disk.absent.keys()

    def is_open(self, name: str) -> bool:
        """Return whether looking at `name` once more may soon tell something else."""
        return self.agenda.is_waiting(name) or name in self.touched or self.disk.is_unsettled(name)

    def _questions(self, names: Sequence[tuple[str, bool]]) -> list[Question]:
        self._notifications.cover(name for name, _ in names)
        self._note_blindness()
        return [
            Question(name, self.disk.findings.get(name), arrived=arrived, verify=name in self._verify)
            for name, arrived in names
        ]

    async def _examine(self, questions: list[Question]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self.executor, self._examined, questions)
        finally:
            self._examining -= 1
            for question in questions:
                self.agenda.done(question.name)
            self.bell.set()
        for question in answers.left if answers.error is None else questions:
            self._put_back(question)
        if answers.error is not None:
            self._cannot_look(answers.error)
        elif answers.identity is not None:
            self._learn(answers, answers.identity)

    def _examined(self, questions: list[Question]) -> Answers:
        return self.examiner.examine_all(questions, budget_seconds=_BUDGET_SECONDS)

    def _put_back(self, question: Question) -> None:
        if question.arrived and not self.agenda.is_waiting(question.name):
            self.agenda.hint(question.name, arrived=True)
        else:
            self.agenda.find([question.name])

    def _learn(self, answers: Answers, identity: RootIdentity) -> None:
        if self.disk.arrive(identity):
            self._note_filesystem()
            self.want_scan()
        for name, examined in answers.found.items():
            self._verify.discard(name)
            if isinstance(examined, Absent) and not self._is_known(name):
                continue
            unchanged = examined is self.disk.findings.get(name) and name not in self.disk.unreadable
            look_again = self.disk.learn(name, examined, hurried=self.is_hurried(name))
            self.agenda.schedule(name, look_again)
            if not unchanged:
                self.touched.add(name)
                self.touched.update(self.disk.neighbours(name))

    def _is_known(self, name: str) -> bool:
        return name in self.disk.findings or name in self.known()

    async def _scan(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        try:
            found = await loop.run_in_executor(self.executor, self._scanned)
        except DiscoveryError as error:
            self.scan_failure = (number, error.reason)
            self._cannot_look(error)
        else:
            self.last_scan = (datetime.now(UTC), time.monotonic() - started)
            self._take_in(found, number)
        finally:
            self._scanning = False
            self.bell.set()

    def _scanned(self) -> Scan:
        return scan(self._settings.prefix, self.disk.findings, marker=self._settings.marker)

    def _take_in(self, found: Scan, number: int) -> None:
        self._blocked = False
        self.scans_done = number
        self.health.recover("prefix")
        if self.disk.arrive(found.identity):
            self._note_filesystem()
        missing = self.disk.missing(found.names, self.known())
        if self.disk.away and not missing:
            self.disk.settle_in(found.identity)
        if self.disk.away:
            self.health.trouble("device", _AWAY)
        else:
            self.health.recover("device")
        self.agenda.find(found.changed)
        self.agenda.find(self._notifications.uncovered(found.names))
        self.agenda.find(missing)
        self.agenda.find([*self.disk.unreadable, *self.disk.absent])
        if self._heals_notifier is not None and number >= self._heals_notifier:
            self.health.recover("notifier")
        if self._scan_at is None and self._settings.interval_seconds > 0:
            self._scan_at = time.monotonic() + self._settings.interval_seconds * random.uniform(*_JITTER)
        _logger.debug("Scanned the prefix adapters=%s changed=%s", len(found.names), len(found.changed))

    def _note_filesystem(self) -> None:
        shared = is_shared(filesystem_type(self._settings.prefix))
        self.examiner.trust_times = not shared

    def _cannot_look(self, error: DiscoveryError) -> None:
        self._blocked = True
        self.health.trouble("prefix", error.reason)
        if self._scan_at is None:
            self._scan_at = time.monotonic() + _RETRY_SECONDS

    def _note_blindness(self) -> None:
        blind = self._notifications.blind
        if blind is not None:
            self.health.trouble("coverage", blind)
        else:
            self.health.recover("coverage")

    def _verify_all(self, now: float) -> None:
        interval = self._settings.verify_interval_seconds
        if interval and now >= self._verify_at:
            self._verify_at = now + interval
            self._verify.update(self.disk.findings)
            self.agenda.find(self.disk.findings)
