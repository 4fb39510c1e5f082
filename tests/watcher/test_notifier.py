"""Hints, and the proof that they still flow."""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from catalog.adapter import Reason
from catalog.status import WatcherMode
from tests.adapters import write_adapter
from tests.waiting import wait_until
from watcher import notifier as module
from watcher import notifying
from watcher.inotify import InotifyNotifier
from watcher.notifier import Hint, Notifications, Notifier, NotifierLost
from watcher.notifying import RescanOnly, notifications_for
from watcher.portable import WatchdogNotifier
from watcher.settings import NotifierChoice, Settings

MAKERS: list[Callable[[Path, Callable[[Hint], None]], Notifier]] = [InotifyNotifier, WatchdogNotifier]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path, Callable[[Hint], None]], Notifier]:
    made: Callable[[Path, Callable[[Hint], None]], Notifier] = request.param
    return made


@asynccontextmanager
async def following(notifier: Notifier) -> AsyncIterator[asyncio.Task[None]]:
    await notifier.start()
    task = asyncio.create_task(notifier.follow())  # type: ignore[arg-type]  # a coroutine, whatever its protocol
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        notifier.close()


async def until(predicate: Callable[[], bool], description: str) -> None:
    await wait_until(predicate, timeout=10, description=description)


async def lost(task: asyncio.Task[None]) -> str:
    """Return the code a notifier was lost with."""
    with pytest.raises(NotifierLost) as caught:
        async with asyncio.timeout(10):
            await task
    return caught.value.reason.code


async def test_whatever_happens_to_an_adapter_is_hinted(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    prefix = tmp_path / "p"
    write_adapter(prefix / "old")
    hints: list[Hint] = []
    notifier = make(prefix, hints.append)
    notifier.cover(["old"])
    assert notifier.covers("old")
    assert notifier.blind is None
    async with following(notifier):
        for name, action in _actions(prefix, tmp_path):
            hints.clear()
            action()
            await until(lambda name=name: any(hint.name == name for hint in hints), f"{name} is hinted")  # type: ignore[misc]


def _actions(prefix: Path, outside: Path) -> list[tuple[str, Callable[[], object]]]:
    """What can happen to an adapter, in this order, and the name that must be hinted."""
    moved = prefix / "moved"
    return [
        ("old", lambda: write_adapter(prefix / "old", seed=2)),
        ("old", (prefix / "old" / "adapter_config.json").unlink),
        ("made", lambda: write_adapter(prefix / "made")),
        ("moved", lambda: write_adapter(outside / "aside").rename(moved)),
        ("moved", lambda: (moved / "adapter_model.safetensors").rename(moved / "adapter_model.bin")),
        ("renamed", lambda: moved.rename(prefix / "renamed")),
        ("renamed", lambda: write_adapter(prefix / "renamed", seed=2)),
        ("old", lambda: shutil.rmtree(prefix / "old")),
    ]


async def test_a_directory_that_came_by_a_rename_is_said_to_have_arrived(tmp_path: Path) -> None:
    hints: list[Hint] = []
    prefix = tmp_path / "p"
    prefix.mkdir()
    async with following(InotifyNotifier(prefix, hints.append)):
        write_adapter(tmp_path / "aside").rename(prefix / "sql")
        await until(lambda: bool(hints), "a hint")
        assert hints == [Hint("sql", arrived=True)]


async def test_temporary_names_are_not_hinted_and_a_flip_of_data_hints_everything(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    hints: list[Hint] = []
    async with following(make(tmp_path, hints.append)):
        write_adapter(tmp_path / ".tmp-sql")
        (tmp_path / "..data_tmp").symlink_to("x")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await until(lambda: Hint(None) in hints, "everything is hinted")
        assert {hint.name for hint in hints} == {None}


async def test_other_files_beside_the_weights_are_not_hinted(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    hints: list[Hint] = []
    notifier = InotifyNotifier(tmp_path, hints.append)
    notifier.cover(["sql", "not there"])
    assert not notifier.covers("not there")
    async with following(notifier):
        (tmp_path / "sql" / "train.log").write_text("x")
        (tmp_path / "other").mkdir()
        await until(lambda: bool(hints), "a hint")
        assert {hint.name for hint in hints} == {"other"}


async def test_reading_and_writing_on_does_not_flood(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql") / "adapter_model.safetensors"
    hints: list[Hint] = []
    notifier = InotifyNotifier(tmp_path, hints.append)
    notifier.cover(["sql"])
    async with following(notifier):
        for _ in range(50):
            weights.read_bytes()
        with weights.open("r+b") as file:
            for _ in range(50):
                file.write(b"x")
                file.flush()
        await until(lambda: bool(hints), "a hint")
        assert len(hints) == 1


async def test_a_living_notifier_proves_it(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    notifier = make(tmp_path, lambda _hint: None)
    async with following(notifier):
        for _ in range(3):
            await notifier.prove_alive(5.0)
        await notifier.prove_attached()


async def test_a_notifier_nobody_follows_cannot_prove_that_it_lives(tmp_path: Path) -> None:
    notifier = InotifyNotifier(tmp_path, lambda _hint: None)
    with pytest.raises(NotifierLost) as caught:
        await notifier.prove_alive(0.05)
    assert caught.value.reason.code == "notifier_silent"
    notifier.close()


async def test_watchdogs_dead_threads_are_noticed(tmp_path: Path) -> None:
    notifier = WatchdogNotifier(tmp_path, lambda _hint: None)
    async with following(notifier):
        for emitter in notifier._observer.emitters:
            emitter.stop()
            emitter.join()
        with pytest.raises(NotifierLost) as caught:
            await notifier.prove_attached()
        assert caught.value.reason.code == "notifier_died"
        with pytest.raises(NotifierLost) as caught:
            await notifier.prove_alive(0.05)
        assert caught.value.reason.code == "notifier_silent"


@pytest.mark.parametrize("replace", ["rename", "remove"])
async def test_a_prefix_that_is_replaced_is_noticed(
    replace: str, make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    prefix = tmp_path / "p"
    prefix.mkdir()
    notifier = make(prefix, lambda _hint: None)
    async with following(notifier):
        if replace == "rename":
            prefix.rename(tmp_path / "old")
        else:
            prefix.rmdir()
        with pytest.raises(NotifierLost) as caught:
            await notifier.prove_attached()
        assert caught.value.reason.code == "prefix_missing"
        prefix.mkdir()
        assert await until_not_attached(notifier) in {"prefix_replaced", "notifier_died"}


async def until_not_attached(notifier: Notifier) -> str:
    """Return the code; where the number of the old directory is reused, the end of its watch tells."""
    async with asyncio.timeout(10):
        while True:
            try:
                await notifier.prove_attached()
            except NotifierLost as lost:
                return lost.reason.code
            await asyncio.sleep(0.01)


async def test_inotify_tells_by_itself_that_its_prefix_went_away(tmp_path: Path) -> None:
    prefix = tmp_path / "p"
    prefix.mkdir()
    async with following(InotifyNotifier(prefix, lambda _hint: None)) as task:
        prefix.rename(tmp_path / "old")
        assert await lost(task) == "prefix_replaced"


async def test_a_change_of_the_prefix_itself_hints_everything(tmp_path: Path) -> None:
    hints: list[Hint] = []
    async with following(InotifyNotifier(tmp_path, hints.append)):
        _change_mode(tmp_path)
        await until(lambda: Hint(None) in hints, "everything is hinted")


def _change_mode(directory: Path) -> None:
    directory.chmod(0o755)


async def test_a_queue_that_overflows_loses_the_notifier(tmp_path: Path) -> None:
    notifier = InotifyNotifier(tmp_path, lambda _hint: None)
    _overflow(tmp_path)  # nobody reads meanwhile
    async with following(notifier) as task:
        assert await lost(task) == "notifications_overflowed"


def _overflow(directory: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [directory / name for name in ("one", "two")]
    for file in files:
        file.touch()
    for number in range(limit + 100):  # in turn: the kernel merges the same event twice in a row
        os.utime(files[number % 2])


async def test_watchdogs_word_about_an_overflow_is_heard(tmp_path: Path) -> None:
    async with following(WatchdogNotifier(tmp_path, lambda _hint: None)) as task:
        logging.getLogger("watchdog.observers.inotify").warning("Inotify queue overflowed")
        logging.getLogger("watchdog.observers.inotify").warning("Inotify queue overflowed")
        assert await lost(task) == "notifications_overflowed"


@pytest.mark.parametrize("make", [*MAKERS, lambda prefix, _: RescanOnly(prefix, attached=True)])
async def test_a_prefix_that_is_not_there_cannot_be_watched(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    with pytest.raises(NotifierLost) as caught:
        make(tmp_path / "nothing", lambda _hint: None)
    assert caught.value.reason.code == "prefix_missing"


async def test_a_file_cannot_be_watched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotifierLost) as caught:
        InotifyNotifier(tmp_path / "file", lambda _hint: None)
    assert caught.value.reason.code == "notifier_unavailable"


async def test_what_can_only_be_rescanned_still_notices_a_replaced_prefix(tmp_path: Path) -> None:
    prefix = tmp_path / "p"
    prefix.mkdir()
    notifier = RescanOnly(prefix, attached=True)
    notifier.cover(["sql"])
    assert notifier.covers("sql")
    async with following(notifier):
        await notifier.prove_alive(1)
        await notifier.prove_attached()
        prefix.rmdir()
        prefix.mkdir()
        (tmp_path / "taken").mkdir()  # so that the number is not reused for the prefix
        prefix.rmdir()
        with pytest.raises(NotifierLost):
            await notifier.prove_attached()


class Scripted:
    """A notifier that does what a test says: dies, goes silent, or is replaced."""

    mode = WatcherMode.INOTIFY
    blind: Reason | None = None

    def __init__(self) -> None:
        self.fault: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.covered: set[str] = set()
        self.is_closed = False
        self.is_attached = True
        self.refuses = False

    async def start(self) -> None:
        pass

    def cover(self, names: Iterable[str]) -> None:
        if self.refuses:
            raise NotifierLost("watch_limit", "no more")
        self.covered |= set(names)

    def covers(self, name: str) -> bool:
        return name in self.covered

    async def follow(self) -> None:
        raise await self.fault

    async def prove_attached(self) -> None:
        if not self.is_attached:
            raise NotifierLost("prefix_replaced", "replaced")

    async def prove_alive(self, timeout_seconds: float) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Heard:
    """What notifications told, and the notifiers they made."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.lost: list[str | None] = []
        self.made: list[Scripted] = []
        self.unmakeable = 0

    def make(self) -> Scripted:
        if self.unmakeable:
            self.unmakeable -= 1
            raise NotifierLost("notifier_unavailable", "no instance")
        self.made.append(Scripted())
        return self.made[-1]

    def on_lost(self, reason: Reason | None) -> None:
        self.lost.append(reason.code if reason else None)


@asynccontextmanager
async def kept(heard: Heard) -> AsyncIterator[Notifications]:
    notifications = Notifications(heard.make, on_hint=heard.hints.append, on_lost=heard.on_lost)
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


async def test_a_prefix_replaced_in_silence_is_noticed_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ATTACHED_SECONDS", 0.02)
    heard = Heard()
    async with kept(heard):
        heard.made[0].is_attached = False
        await until(lambda: len(heard.made) == 2, "a new one is made")
        assert heard.lost == [None, "prefix_replaced", None]


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
async def test_the_notifier_fits_the_filesystem_unless_a_person_decides(
    choice: NotifierChoice, kind: str, mode: WatcherMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "filesystem_type", lambda _path: kind)
    settings = Settings(prefix=tmp_path, notifier=choice)
    made: list[Hint] = []
    notifications = notifications_for(settings, on_hint=made.append, on_lost=lambda _reason: None)
    task = asyncio.create_task(notifications.run())
    await until(lambda: bool(made), "it began")
    assert notifications.mode is mode
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_on_other_systems_watchdog_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    notifier = notifying._make(NotifierChoice.AUTO, tmp_path, lambda _hint: None)
    assert notifier.mode is WatcherMode.WATCHDOG
    notifier.close()
