"""A notifier proves that its hints still flow, or is lost with a reason."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.observers.api import EventEmitter

from loradrop.watcher.notify.inotify import InotifyNotifier
from loradrop.watcher.notify.lost import NotifierLost
from loradrop.watcher.notify.notifier import Hint, Notifier
from loradrop.watcher.notify.selection import RescanOnly
from loradrop.watcher.notify.watchdog_notifier import WatchdogNotifier
from testkit.waiting import wait_until
from tests.watcher.notifiers import MAKERS, following, until


async def lost(task: asyncio.Task[None]) -> str:
    """Return the code a notifier was lost with."""
    with pytest.raises(NotifierLost) as caught:
        async with asyncio.timeout(10):
            await task
    return caught.value.reason.code


async def test_a_living_notifier_proves_it(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    notifier = make(tmp_path, lambda _hint: None)
    async with following(notifier):
        for _ in range(3):
            await notifier.prove_alive(5.0)
        await notifier.prove_attached()


async def test_a_notifier_that_is_not_followed_cannot_prove_that_it_lives(tmp_path: Path) -> None:
    notifier = InotifyNotifier(tmp_path, lambda _hint: None)
    with pytest.raises(NotifierLost) as caught:
        await notifier.prove_alive(0.05)
    assert caught.value.reason.code == "notifier_silent"
    notifier.close()


def emitters() -> set[EventEmitter]:
    """Return watchdog's threads that read notifications."""
    return {thread for thread in threading.enumerate() if isinstance(thread, EventEmitter)}


async def test_watchdogs_dead_threads_are_noticed(tmp_path: Path) -> None:
    others = emitters()  # another test's, which may hang for good
    notifier = WatchdogNotifier(tmp_path, lambda _hint: None)
    async with following(notifier):
        for emitter in emitters() - others:
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
    codes: list[str] = []

    async def is_lost() -> bool:
        try:
            await notifier.prove_attached()
        except NotifierLost as lost:
            codes.append(lost.reason.code)
        return bool(codes)

    await wait_until(is_lost, timeout=10, description="the notifier is not attached any more")
    return codes[0]


async def test_inotify_tells_by_itself_that_its_prefix_went_away(tmp_path: Path) -> None:
    prefix = tmp_path / "p"
    prefix.mkdir()
    async with following(InotifyNotifier(prefix, lambda _hint: None)) as task:
        prefix.rename(tmp_path / "old")
        assert await lost(task) == "prefix_replaced"


async def test_a_directory_that_took_anothers_place_by_rename_has_arrived_and_nothing_wrote_to_it(
    tmp_path: Path,
) -> None:
    prefix, aside = tmp_path / "p", tmp_path / "aside"
    for directory in (prefix / "a", aside / "new"):
        directory.mkdir(parents=True)
    hints: list[Hint] = []
    notifier = InotifyNotifier(prefix, hints.append)
    notifier.cover(["a"])
    async with following(notifier):
        (prefix / "a").rename(aside / "old")
        (aside / "new").rename(prefix / "a")
        (aside / "old" / "adapter_config.json").touch()
        (prefix / "b").mkdir()
        await until(lambda: Hint("b") in hints, "what happened before is heard")
        await notifier.prove_alive(10.0)  # and what the notifier's own calls caused
    assert [hint.arrived for hint in hints if hint.name == "a"][-1], hints


async def test_a_queue_that_overflows_loses_the_notifier(tmp_path: Path) -> None:
    notifier = InotifyNotifier(tmp_path, lambda _hint: None)
    _overflow(tmp_path)  # it is not read meanwhile
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
