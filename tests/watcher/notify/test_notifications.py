"""The choice of a notifier, and its replacement when it is lost."""

import asyncio
import errno
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loradrop.catalog.adapter import Reason
from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.status import WatcherMode
from loradrop.watcher.notify.lost import NotifierLost
from loradrop.watcher.notify.notifier import Hint, Notifications, Notifier
from loradrop.watcher.notify.selection import make_notifier
from loradrop.watcher.settings import NotifierChoice
from loradrop.watcher.timings import Timings
from tests.watcher.notifiers import until


class Scripted(Notifier):
    """A notifier that does what a test says: dies, goes silent, or is replaced."""

    mode = WatcherMode.INOTIFY

    def __init__(self) -> None:
        self.fault: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.covered: set[str] = set()
        self.is_closed = False
        self.is_attached = True
        self.refuses = False
        self.is_followed = False
        self.fails_when_cancelled = False
        self.fails_when_closed = False

    async def start(self) -> None:
        pass

    def cover(self, names: Iterable[str]) -> None:
        if self.refuses:
            raise NotifierLost("watch_limit", "no more")
        self.covered |= set(names)

    def covers(self, name: str) -> bool:
        return name in self.covered

    async def follow(self) -> None:
        self.is_followed = True
        try:
            raise await self.fault
        except asyncio.CancelledError:
            if self.fails_when_cancelled:
                raise NotifierLost("notifier_silent", "x") from None
            raise

    async def prove_attached(self) -> None:
        if not self.is_attached:
            raise NotifierLost("prefix_replaced", "replaced")

    async def prove_alive(self, timeout_seconds: float) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True
        if self.fails_when_closed:
            raise OSError(errno.EROFS, "read-only")


class Heard:
    """What notifications told, and the notifiers they made."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.lost: list[str | None] = []
        self.made: list[Scripted] = []
        self.unmakeable = 0
        self.unmakeable_for: Exception = NotifierLost("notifier_unavailable", "no instance")

    def make(self) -> Scripted:
        if self.unmakeable:
            self.unmakeable -= 1
            raise self.unmakeable_for
        self.made.append(Scripted())
        return self.made[-1]

    def on_lost(self, reason: Reason | None) -> None:
        self.lost.append(reason.code if reason else None)


@asynccontextmanager
async def kept(heard: Heard, timings: Timings | None = None) -> AsyncIterator[Notifications]:
    notifications = Notifications(
        heard.make, on_hint=heard.hints.append, on_lost=heard.on_lost, timings=timings or Timings()
    )
    task = asyncio.create_task(notifications.run())
    try:
        await until(lambda: bool(heard.made) or bool(heard.lost), "it began")
        yield notifications
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (NotifierLost("notifications_overflowed", "x"), "notifications_overflowed"),
        (RuntimeError("a bug"), "notifier_died"),
        (KeyError("watchdog"), "notifier_died"),
    ],
)
async def test_a_notifier_that_fails_is_replaced_and_everything_is_looked_at(
    fault: Exception, code: str
) -> None:
    heard = Heard()
    async with kept(heard):
        assert heard.hints == [Hint(None)]
        heard.made[0].fault.set_result(fault)
        await until(lambda: len(heard.made) == 2, "a new one is made")
        assert heard.made[0].is_closed
        assert heard.lost == [None, code, None]
        assert heard.hints == [Hint(None), Hint(None)]


async def test_a_notifier_that_cannot_be_made_is_tried_again() -> None:
    heard = Heard()
    heard.unmakeable = 2
    async with kept(heard) as notifications:
        assert notifications.uncovered(["sql"]) == []
        notifications.cover(["sql"])
        assert notifications.blind is None
        await until(lambda: bool(heard.made), "one is made in the end")
        assert heard.lost == ["notifier_unavailable", "notifier_unavailable", None]


async def test_a_notifier_that_fails_in_an_unforeseen_way_while_it_is_made_is_tried_again() -> None:
    heard = Heard()
    heard.unmakeable, heard.unmakeable_for = 1, IndexError("of a table of mounts")
    async with kept(heard):
        await until(lambda: bool(heard.made), "one is made in the end")
        assert heard.lost == ["notifier_died", None]


async def test_a_notifier_that_cannot_be_closed_is_replaced() -> None:
    heard = Heard()
    async with kept(heard):
        heard.made[0].fails_when_closed = True  # its temporary directory may have become read-only
        heard.made[0].fault.set_result(NotifierLost("notifications_overflowed", "x"))
        await until(lambda: len(heard.made) == 2, "a new one is made")


async def test_a_prefix_replaced_in_silence_is_noticed() -> None:
    heard = Heard()
    async with kept(heard, Timings(attached_seconds=0.02)):
        heard.made[0].is_attached = False
        await until(lambda: len(heard.made) == 2, "a new one is made")
        assert heard.lost == [None, "prefix_replaced", None]


async def test_a_notifier_that_fails_while_everything_ends_does_not_keep_it_from_ending() -> None:
    heard = Heard()
    notifications = Notifications(
        heard.make, on_hint=heard.hints.append, on_lost=heard.on_lost, timings=Timings()
    )
    task = asyncio.create_task(notifications.run())
    await until(lambda: bool(heard.made), "it began")
    heard.made[0].fails_when_cancelled = True
    await until(lambda: heard.made[0].is_followed, "it is followed")
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    assert done == {task}


async def test_names_are_covered_once_and_a_refusal_is_no_crash() -> None:
    heard = Heard()
    async with kept(heard) as notifications:
        await until(lambda: notifications.mode is WatcherMode.INOTIFY, "it runs")
        notifications.cover(["sql"])
        assert notifications.uncovered(["sql", "math"]) == ["math"]
        heard.made[0].refuses = True
        notifications.cover(["math"])
        assert heard.lost == [None]


@pytest.mark.parametrize(
    ("choice", "kind", "mode"),
    [
        (NotifierChoice.AUTO, "ext4", WatcherMode.INOTIFY),
        (NotifierChoice.AUTO, "nfs4", WatcherMode.RESCAN),
        (NotifierChoice.INOTIFY, "nfs4", WatcherMode.INOTIFY),
        (NotifierChoice.WATCHDOG, "ext4", WatcherMode.WATCHDOG),
        (NotifierChoice.NONE, "ext4", WatcherMode.RESCAN),
    ],
)
async def test_the_notifier_fits_the_filesystem_unless_the_operator_decides(
    choice: NotifierChoice, kind: str, mode: WatcherMode, tmp_path: Path
) -> None:
    notifier = make_notifier(choice, tmp_path, Roots((tmp_path,)), kind, lambda _hint: None)
    assert notifier.mode is mode
    notifier.close()


async def test_on_other_systems_watchdog_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    notifier = make_notifier(NotifierChoice.AUTO, tmp_path, Roots((tmp_path,)), None, lambda _hint: None)
    assert notifier.mode is WatcherMode.WATCHDOG
    notifier.close()
