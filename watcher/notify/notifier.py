"""Hints that something under the prefix may have changed, and the proof that they still flow.

Every notification mechanism loses events: queues overflow, watches follow a directory that was renamed
away, threads die in silence, mounts come and go. So a notification is only ever a hint, and this module's
business is to notice when hints may be missing. A notifier proves that it is alive (a file written
to a private directory must come back through the same pipe) and attached (the prefix is still the directory
it watches). One that cannot is thrown away; the watcher is told, scans everything, and gets a new one.

Not here: the mechanisms (`inotify`, `watchdog_notifier`), and what is done about a hint (`watcher`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from loradrop.catalog.adapter import Reason
from loradrop.catalog.backoff import HALF_JITTER, Backoff
from loradrop.catalog.status import WatcherMode
from loradrop.watcher.exception_groups import first_of, in_own_task
from loradrop.watcher.notify.lost import NotifierLost
from loradrop.watcher.timings import Timings

_logger = logging.getLogger(__name__)

ROOT_CHANGED = frozenset({"prefix_missing", "prefix_replaced"})
"""Reasons that are not the notifier's fault, which may be made again at once: the prefix itself went away."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Examine `name` again, or scan everything where it is None.

    `arrived`: the whole directory came by a rename.
    """

    name: str | None
    arrived: bool = False


class Notifier:
    """One mechanism, watching one prefix from `start` on. Every method raises NotifierLost.

    What is written here is true of a mechanism that watches all of the prefix by itself.
    """

    mode: WatcherMode

    @property
    def blind(self) -> Reason | None:
        """Why some adapters are not watched, or None where all are."""
        return None

    async def start(self) -> None:
        """Return when every later change will be noticed."""

    def cover(self, names: Iterable[str]) -> None:
        """Watch inside these adapters, too, where that is not so already."""

    def covers(self, name: str) -> bool:  # noqa: ARG002 - every name is
        """Return whether changes inside this adapter are noticed."""
        return True

    async def follow(self) -> None:
        """Pass on hints for ever."""

    async def prove_attached(self) -> None:
        """Return where the prefix is still the directory that is watched."""

    async def prove_alive(self, timeout_seconds: float) -> None:
        """Return where a change made now comes back as a notification within the time."""

    def close(self) -> None:
        """Stop watching."""


class Notifications:
    """Keeps one notifier at work. `on_hint` hears all hints, `on_lost` the reason they stopped, or None."""

    def __init__(
        self,
        make: Callable[[], Notifier],
        *,
        on_hint: Callable[[Hint], None],
        on_lost: Callable[[Reason | None], None],
        timings: Timings,
    ) -> None:
        """Make notifiers with `make`, which raises NotifierLost."""
        self._timings = timings
        self.mode = WatcherMode.RESCAN
        self._make = make
        self._on_hint = on_hint
        self._on_lost = on_lost
        self._notifier: Notifier | None = None

    @property
    def blind(self) -> Reason | None:
        """Why some adapters are not watched, or None."""
        return self._notifier.blind if self._notifier is not None else None

    def uncovered(self, names: Iterable[str]) -> list[str]:
        """Return which of `names` are not watched and should be."""
        notifier = self._notifier
        return [] if notifier is None else [name for name in names if not notifier.covers(name)]

    def cover(self, names: Iterable[str]) -> None:
        """Watch inside `names`; what cannot be watched shows in `blind`."""
        if self._notifier is None:
            return
        try:
            self._notifier.cover(names)
        except NotifierLost as lost:
            _logger.debug("Adapters are not covered reason=%s", lost.reason)  # `follow` hears of it, too

    async def run(self) -> None:
        """Make a notifier, follow it, and replace it when it is lost, for ever."""
        timings = self._timings
        backoff = Backoff(
            timings.first_notifier_pause_seconds,
            timings.last_notifier_pause_seconds,
            healthy_seconds=timings.healthy_notifier_seconds,
            jitter=HALF_JITTER,
        )
        while True:
            started = time.monotonic()
            try:
                self._notifier = self._make()
                await self._notifier.start()
                self.mode = self._notifier.mode
                self._on_lost(None)
                self._on_hint(Hint(None))  # what changed before it watched
                await in_own_task(_follow(self._notifier, timings))
            except Exception as error:  # noqa: BLE001 - whatever kills a notifier, it is replaced
                lost = error if isinstance(error, NotifierLost) else _died(error)
                self.mode = WatcherMode.RESCAN
                self._on_lost(lost.reason)
                if lost.reason.code in ROOT_CHANGED:
                    backoff.reset()
            finally:
                self._drop()
            await asyncio.sleep(backoff.pause_seconds(lasted_seconds=time.monotonic() - started))

    def _drop(self) -> None:
        notifier, self._notifier = self._notifier, None
        if notifier is None:
            return
        try:
            notifier.close()
        except Exception:  # what is left behind of it harms nothing
            _logger.exception("Notifier could not be closed")


async def _follow(notifier: Notifier, timings: Timings) -> None:
    """Follow a notifier until it is lost; raises NotifierLost, whatever went wrong in it."""
    lost: NotifierLost | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(notifier.follow())
            tasks.create_task(_check_attached(notifier, timings.attached_seconds))
            tasks.create_task(_check_alive(notifier, timings.alive_seconds))
    except* NotifierLost as group:
        lost = first_of(group)
    except* Exception as group:  # noqa: BLE001 - as in `run`
        lost = _died(first_of(group))
    if lost is not None:
        raise lost


def _died(error: Exception) -> NotifierLost:
    return NotifierLost(
        "notifier_died", f"The notifier failed ({error!r}). It is replaced; rescans go on meanwhile."
    )


async def _check_attached(notifier: Notifier, period_seconds: float) -> None:
    while True:
        await asyncio.sleep(period_seconds)
        await notifier.prove_attached()


async def _check_alive(notifier: Notifier, period_seconds: float) -> None:
    while True:
        await asyncio.sleep(period_seconds)
        await notifier.prove_alive(period_seconds)
