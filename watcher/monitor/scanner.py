"""Scans the prefix when that is due, and takes what a scan found into the state of the prefix."""

import logging
import time
from datetime import UTC, datetime

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import DiscoveryError
from loradrop.watcher.monitor.examiner_pool import ExaminerPool
from loradrop.watcher.monitor.scan_schedule import ScanFailure, ScanSchedule
from loradrop.watcher.prefix.scan import Scan, list_names, open_root, scan
from loradrop.watcher.settings import Settings
from loradrop.watcher.state.conditions import Conditions
from loradrop.watcher.state.counters import Counters
from loradrop.watcher.state.prefix_state import PrefixState

_logger = logging.getLogger(__name__)


class Scanner:
    """The scans of one prefix. `last_scan` is when the last one ended, and how many seconds it took."""

    def __init__(
        self,
        settings: Settings,
        pool: ExaminerPool,
        state: PrefixState,
        *,
        conditions: Conditions,
        counters: Counters,
    ) -> None:
        """Scan in `pool`; the first is due at once."""
        self.last_scan: tuple[datetime, float] | None = None
        self._settings = settings
        self._pool = pool
        self._state = state
        self._conditions = conditions
        self._counters = counters
        self._schedule = ScanSchedule(settings.interval_seconds, now=time.monotonic())
        self._is_blocked = False
        self._session_scan: int | None = None
        self._recovering_scan: int | None = None

    @property
    def done(self) -> int:
        """The number of the last scan that told the whole truth."""
        return self._schedule.done

    @property
    def failure(self) -> ScanFailure | None:
        """Why nothing under the prefix can be read, and which scan found that; None where all is well."""
        return self._schedule.failure if self._is_blocked else None

    def want(self) -> int:
        """Scan as soon as possible; return the number of the first scan that begins after now."""
        return self._schedule.want(now=time.monotonic())

    def begin_session(self) -> int:
        """Scan, and make dirty what that finds unchanged, too; return the scan's number."""
        self._session_scan = self.want()
        return self._session_scan

    def notifier_lost(self, reason: Reason | None) -> None:
        """Note that hints have stopped, or (None) come again: what they missed shows in the next scan."""
        if reason is None:
            self._recovering_scan = self.want()
        else:
            self._recovering_scan = None
            self._conditions.set("notifier", reason)

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the next scan may begin; None while one runs or none is due."""
        return self._schedule.next_due()

    def is_due(self, now: float) -> bool:
        """Return whether the next scan may begin."""
        due = self._schedule.next_due()
        return due is not None and due <= now

    def begin(self) -> int:
        """Note that a scan begins, and return its number, for `run`."""
        return self._schedule.begin()

    async def run(self, number: int) -> Scan | None:
        """Scan, and take in what was found; None where the prefix could not be read."""
        try:
            found, seconds = await self._pool.scan(self.scan_now)
        except DiscoveryError as error:
            self.cannot_read(error, number)
            return None
        except Exception as error:
            # Whatever is under the prefix, the watcher goes on, and removes nothing because of it.
            _logger.exception("Scan failed")
            self.cannot_read(DiscoveryError(f"The scan failed ({type(error).__name__}: {error})."), number)
            return None
        self._is_blocked = False
        self._schedule.succeed(number, now=time.monotonic())
        self.last_scan = (datetime.now(UTC), seconds)
        self._counters.scan_seconds.observe(seconds)
        self._counters.scan_changed += len(found.changed)
        self._state.observe_root(found.identity)
        self._state.observe_scan(found.names)
        if self._session_scan is not None and number >= self._session_scan:
            self._session_scan = None
            self._state.mark_dirty(found.names - set(found.changed))
        self._conditions.set("prefix", None)
        if self._recovering_scan is not None and number >= self._recovering_scan:
            self._conditions.set("notifier", None)
        _logger.debug("Scanned the prefix adapters=%s changed=%s", len(found.names), len(found.changed))
        return found

    def scan_now(self) -> Scan:
        """Scan in this thread, and take nothing in; raises DiscoveryError."""
        settings = self._settings
        return scan(settings.prefix, self._state.names, settings.roots, marker=settings.marker)

    def list_now(self) -> frozenset[str]:
        """List the names in the prefix in this thread; raises DiscoveryError."""
        with open_root(self._settings.prefix, marker=self._settings.marker) as (root_fd, _):
            return list_names(root_fd, self._settings.prefix)

    def cannot_read(self, error: DiscoveryError, number: int = 0) -> None:
        """Note that scan `number`, or (0) an examination, could not read the prefix as a whole."""
        self._is_blocked = True
        self._state.doubt_root()
        self._counters.scan_failures += 1
        self._schedule.fail(number, error.reason, now=time.monotonic())
        self._conditions.set("prefix", error.reason)
