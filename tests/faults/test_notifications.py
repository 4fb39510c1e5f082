"""Faults of notifications: overflows, dead threads, limits, none at all."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.utils.delayed_queue import DelayedQueue

from loradrop.catalog.store import Connection
from loradrop.watcher.settings import NotifierChoice
from loradrop.watcher.timings import Timings
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.faults.table import Row
from tests.faults.watchers import SETTINGS, History, note_all, since, watcher_process, works, write_some
from tests.watcher.running import PATIENCE_SECONDS, watching

needs_limits = pytest.mark.skipif(
    not works(
        "unshare", "--user", "--map-root-user", "sh", "-c", "echo 9 >/proc/sys/user/max_inotify_watches"
    ),
    reason="may not limit watches in a user namespace",
)


async def test_stopped_while_20_000_files_come(
    connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    log = tmp_path / "log"
    flags = ("--lora-discovery-interval", "0")
    async with watcher_process(connection, prefix, *flags, log=log) as (child, history):
        await history.catalog.until_scanned()
        child.send_signal(signal.SIGSTOP)
        for number in range(20_000):
            (prefix / f"file{number}").touch()
        names = write_some(prefix, 50)
        note_all(history, prefix, names)
        woken = time.monotonic()
        child.send_signal(signal.SIGCONT)
        await wait_until(
            lambda: "notifications_overflowed" in log.read_text(),
            timeout=PATIENCE_SECONDS,
            description="the overflow is told",
        )
        row.detect_seconds = since(woken)
        await history.catalog.until_served(set(names))
        row.converge_seconds = since(woken)
        publish_adapter(prefix, "later")  # notifications flow again: there is no rescan here
        history.note(prefix / "later")
        await history.catalog.until_served({*names, "later"})
        await history.catalog.until_degraded(None)
        await history.check(row, expected=names)


def die_reading(_queue: DelayedQueue[object]) -> None:
    raise KeyError("as watchdog's reader has died in the wild")


def die_holding_a_lock(queue: DelayedQueue[object]) -> None:
    queue._lock.acquire()  # for ever: who stops this observer hangs
    raise KeyError("as a reader dies that is interrupted in watchdog's own code")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("die", [die_reading, die_holding_a_lock])
async def test_watchdogs_reader_thread_dies(
    die: Callable[[DelayedQueue[object]], None],
    connection: Connection,
    prefix: Path,
    row: Row,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timings = Timings(alive_seconds=0.5)
    settings = {**SETTINGS, "timings": timings, "notifier": NotifierChoice.WATCHDOG, "interval_seconds": 0}
    async with watching(connection, prefix, **settings) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        killed = time.monotonic()
        put, alive = DelayedQueue.put, iter([True])

        def fatal_once(queue: DelayedQueue[object], element: object, *, delay: bool = False) -> None:
            if next(alive, False):
                die(queue)
            put(queue, element, delay=delay)

        monkeypatch.setattr(DelayedQueue, "put", fatal_once)
        write_some(prefix, 3)
        note_all(history, prefix, ["a0", "a1", "a2"])
        await catalog.until_served({"a0", "a1", "a2"})
        publish_adapter(prefix, "later")
        history.note(prefix / "later")
        await catalog.until_served({"a0", "a1", "a2", "later"})
        row.converge_seconds = since(killed)
        await catalog.until_degraded(None)
        await history.check(row, expected=["a0", "a1", "a2", "later"])


@needs_limits
async def test_fewer_watches_than_adapters(connection: Connection, prefix: Path, row: Row) -> None:
    names = write_some(prefix, 50)
    limit = 'echo 20 >/proc/sys/user/max_inotify_watches; exec "$@"'
    within = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"]
    started = time.monotonic()
    async with watcher_process(connection, prefix, within=within) as (_, history):
        note_all(history, prefix, names)
        await history.catalog.until_degraded("watch_limit")
        row.detect_seconds = since(started)
        await history.catalog.until_served(set(names))
        for name in names:  # the rescan finds what the missing watches do not tell
            write_adapter(prefix / name, seed=200)
        changed = time.monotonic()
        wanted = history.note(prefix / "a0")
        for name in names:
            await history.until_revision(name, wanted)
        row.converge_seconds = since(changed)
        await history.check(row, expected=names)


async def test_no_notifications_at_all(connection: Connection, prefix: Path, row: Row) -> None:
    settings = {**SETTINGS, "notifier": NotifierChoice.NONE, "interval_seconds": 0.5}
    async with watching(connection, prefix, **settings) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        revision = history.note(publish_adapter(prefix, "sql"))
        row.converge_seconds = await history.until_revision("sql", revision)
        shutil.rmtree(prefix / "sql")
        await catalog.until_gone("sql")
        await history.check(row, removed=["sql"])
