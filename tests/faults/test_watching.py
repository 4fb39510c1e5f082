"""Faults of the watching: overflows, dead threads, limits, a prefix that changes. 9 to 18 and 27."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest
from watchdog.utils.delayed_queue import DelayedQueue

from catalog.adapter import AdapterState
from catalog.store import Connection
from tests.adapters import publish_adapter, write_adapter
from tests.faults.table import Row
from tests.faults.watchers import History, since, watcher_process
from tests.waiting import wait_until
from tests.watcher.bad_adapters import BAD
from tests.watcher.running import PATIENCE_SECONDS, watching
from watcher import judgement
from watcher import notifier as notifier_module
from watcher.removal import RemovalRule
from watcher.settings import NotifierChoice
from watcher.settle import SettleRule

SETTINGS = {
    "settle": SettleRule(settle_seconds=0.3),
    "removal": RemovalRule(grace_seconds=0.3, mass_grace_seconds=600),
}
NAMESPACED = ["unshare", "--mount", "--propagation", "private"]


def works(*command: str) -> bool:
    """Return whether this machine lets us inject a fault that way."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(
    not works(*NAMESPACED, "mount", "-t", "tmpfs", "none", "/mnt"), reason="may not mount in a namespace"
)
needs_limits = pytest.mark.skipif(
    not works(
        "unshare", "--user", "--map-root-user", "sh", "-c", "echo 9 >/proc/sys/user/max_inotify_watches"
    ),
    reason="may not limit watches in a user namespace",
)
needs_dropping = pytest.mark.skipif(
    os.geteuid() != 0 or not works("setpriv", "--bounding-set", "-dac_override", "true"),
    reason="may not drop capabilities",
)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "prefix"
    path.mkdir()
    return path


def write_some(prefix: Path, count: int, *, start: int = 0) -> list[str]:
    names = [f"a{number}" for number in range(start, start + count)]
    for number, name in enumerate(names):
        write_adapter(prefix / name, seed=start + number + 1)
    return names


def note_all(history: History, prefix: Path, names: Iterable[str]) -> None:
    for name in names:
        history.note(prefix / name)


async def test_9_stopped_while_20_000_files_come(
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
async def test_10_watchdogs_reader_thread_dies(
    die: Callable[[DelayedQueue[object]], None],
    connection: Connection,
    prefix: Path,
    row: Row,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifier_module, "ALIVE_SECONDS", 0.5)
    settings = {**SETTINGS, "notifier": NotifierChoice.WATCHDOG, "interval_seconds": 0}
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
async def test_11_fewer_watches_than_adapters(connection: Connection, prefix: Path, row: Row) -> None:
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


@needs_mounts
@pytest.mark.parametrize("how", ["umount", "umount --lazy"])
async def test_12_and_13_unmounted_and_mounted_again(
    how: str, connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    store = tmp_path / "store"
    names = write_some(store, 5)
    mount = (
        f"mount --bind {store} {prefix}"
        if how == "umount"
        else f"mount -t tmpfs none {prefix} && cp -a {store}/. {prefix}"
    )
    within = [*NAMESPACED, "sh", "-c", f'{mount}; exec "$@"', "sh"]
    flags = ("--prefix-marker", ".mounted") if how == "umount" else ()
    (store / ".mounted").touch()
    async with watcher_process(connection, prefix, *flags, within=within) as (child, history):
        note_all(history, store, names)
        await history.catalog.until_served(set(names))

        def inside(command: str) -> None:
            subprocess.run(
                ["nsenter", "--target", str(child.pid), "--mount", "sh", "-c", command], check=True
            )

        await until_unmounted(inside, f"{how} {prefix}")
        unmounted = time.monotonic()
        await history.catalog.until_degraded("prefix_marker_missing" if flags else "prefix_device_changed")
        row.detect_seconds = since(unmounted)
        await history.check(row, expected=names)
        write_adapter(store / "new", seed=77)
        inside(mount)
        mounted = time.monotonic()
        await history.catalog.until_served({*names, "new"})
        await history.catalog.until_degraded(None)
        row.converge_seconds = since(mounted)
        history.note(store / "new")
        await history.check(row, expected=[*names, "new"])


async def until_unmounted(inside: "object", command: str) -> None:
    """Unmount; a look under way keeps the mount busy for an instant."""

    def done() -> bool:
        try:
            inside(command)  # type: ignore[operator]
        except subprocess.CalledProcessError:
            return False
        return True

    await wait_until(done, timeout=PATIENCE_SECONDS, description="it is unmounted")


async def test_14_prefix_renamed_and_replaced(connection: Connection, prefix: Path, row: Row) -> None:
    write_some(prefix, 4)
    green = prefix.parent / "green"
    write_some(green, 5, start=2)
    async with watching(connection, prefix, **SETTINGS, interval_seconds=0) as catalog:
        history = History(catalog)
        note_all(history, prefix, [f"a{number}" for number in range(4)])
        note_all(history, green, [f"a{number}" for number in range(2, 7)])
        await catalog.until_served({"a0", "a1", "a2", "a3"})
        prefix.rename(prefix.parent / "blue")
        green.rename(prefix)
        replaced = time.monotonic()
        await catalog.until_served({f"a{number}" for number in range(2, 7)})
        row.converge_seconds = since(replaced)
        write_adapter(prefix.parent / "blue" / "ghost")  # the old directory is no longer listened to
        publish_adapter(prefix, "later")
        history.note(prefix / "later")
        await catalog.until("later", AdapterState.READY)
        assert "ghost" not in await catalog.adapters()
        await history.check(row, removed=["a0", "a1"], expected=["a2", "later"])


@needs_dropping
async def test_15_an_adapter_that_cannot_be_read_for_a_while(
    connection: Connection, prefix: Path, row: Row
) -> None:
    names = write_some(prefix, 3)
    within = [
        "setpriv",
        "--bounding-set",
        "-dac_override,-dac_read_search",
        "--inh-caps",
        "-dac_override,-dac_read_search",
    ]
    async with watcher_process(connection, prefix, within=within) as (_, history):
        note_all(history, prefix, names)
        await history.catalog.until_served(set(names))
        (prefix / "a1").chmod(0o000)
        locked = time.monotonic()
        unknown = await history.catalog.until("a1", AdapterState.UNKNOWN, code="not_readable")
        row.detect_seconds = since(locked)
        assert unknown.revision in history.complete
        (prefix / "a1").chmod(0o755)
        unlocked = time.monotonic()
        await history.catalog.until("a1", AdapterState.READY)
        row.converge_seconds = since(unlocked)
        prefix.chmod(0o000)
        await history.catalog.until_degraded("prefix_unreadable")
        await history.check(row, expected=names)
        prefix.chmod(0o755)
        await history.catalog.until_degraded(None)
        await history.check(row, expected=names)


async def test_16_no_notifications_at_all(connection: Connection, prefix: Path, row: Row) -> None:
    settings = {**SETTINGS, "notifier": NotifierChoice.NONE, "interval_seconds": 0.5}
    async with watching(connection, prefix, **settings) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        revision = history.note(publish_adapter(prefix, "sql"))
        row.converge_seconds = await history.until_revision("sql", revision)
        assert row.converge_seconds < 0.5 * 1.25 + SETTINGS["settle"].settle_seconds + 0.5
        shutil.rmtree(prefix / "sql")
        await catalog.until_gone("sql")
        await history.check(row, removed=["sql"])


@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
async def test_18_clock_stepped(
    step_seconds: float, connection: Connection, prefix: Path, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        real = time.time
        monkeypatch.setattr(judgement.time, "time", lambda: real() + step_seconds)
        stepped = time.monotonic()
        revision = history.note(write_adapter(prefix / "sql"))
        await history.until_revision("sql", revision)
        row.converge_seconds = since(stepped)
        assert row.converge_seconds >= 0.3  # it has settled by our own clock, whatever the other says
        write_adapter(prefix / "sql", seed=2)
        second = history.note(prefix / "sql")
        await history.until_revision("sql", second)
        assert await history.revisions_of("sql") == [revision, second]
        await history.check(row, expected=["sql"])


async def test_27_malicious_input(connection: Connection, prefix: Path, row: Row) -> None:
    async with watcher_process(connection, prefix) as (child, history):
        await history.catalog.until_scanned()
        before = psutil.Process(child.pid).memory_info().rss
        for bad in BAD:
            bad.write(prefix / bad.kind)
        huge = write_adapter(prefix / "config_of_a_gigabyte")
        os.truncate(huge / "adapter_config.json", 1 << 30)
        wide = write_adapter(prefix / "header_of_100_megabytes")
        (wide / "adapter_model.safetensors").write_bytes((100 << 20).to_bytes(8, "little"))
        os.truncate(wide / "adapter_model.safetensors", 101 << 20)
        os.rename(write_adapter(prefix / "tmpname"), os.fsencode(prefix) + b"/caf\xe9")  # noqa: PTH104 - bytes
        history.note(publish_adapter(prefix, "good"))
        for bad in BAD:
            await history.catalog.until(bad.kind, bad.state, code=bad.code)
        await history.catalog.until(huge.name, AdapterState.REJECTED, code="config_too_large")
        await history.catalog.until(wide.name, AdapterState.REJECTED, code="header_too_large")
        await history.catalog.until("caf\\xe9", AdapterState.REJECTED, code="name_unusable")
        await history.catalog.until("good", AdapterState.READY)
        grown = psutil.Process(child.pid).memory_info().rss - before
        assert grown < 80 << 20
        assert not Path("/tmp/loradrop-was-owned").exists()
        await history.check(row, expected=["good"])
