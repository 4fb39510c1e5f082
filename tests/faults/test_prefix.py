"""Faults of the prefix: unmounted, replaced, not to be read."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.faults.table import Row
from tests.faults.watchers import SETTINGS, History, note_all, since, watcher_process, works, write_some
from tests.watcher.running import PATIENCE_SECONDS, watching

NAMESPACED = ["unshare", "--mount", "--propagation", "private"]
needs_mounts = pytest.mark.skipif(
    not works(*NAMESPACED, "mount", "-t", "tmpfs", "none", "/mnt"), reason="may not mount in a namespace"
)
needs_dropping = pytest.mark.skipif(
    os.geteuid() != 0 or not works("setpriv", "--bounding-set", "-dac_override", "true"),
    reason="may not drop capabilities",
)


@needs_mounts
@pytest.mark.parametrize("how", ["umount", "umount --lazy"])
async def test_unmounted_and_mounted_again(
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
        await history.catalog.until_degraded("prefix_marker_missing" if flags else "prefix_away")
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


async def test_prefix_renamed_and_replaced(connection: Connection, prefix: Path, row: Row) -> None:
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


@needs_mounts
@pytest.mark.parametrize("count", [1, 3, 10])
async def test_unmounted_bind_mount_without_a_marker(
    count: int, connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    store = tmp_path / "store"
    names = write_some(store, count)
    mount = f"mount --bind {store} {prefix}"  # the same device, before and after
    within = [*NAMESPACED, "sh", "-c", f'{mount}; exec "$@"', "sh"]
    async with watcher_process(connection, prefix, "--mass-removal-grace", "0.5", within=within) as (
        child,
        history,
    ):
        note_all(history, store, names)
        await history.catalog.until_served(set(names))

        def inside(command: str) -> None:
            subprocess.run(
                ["nsenter", "--target", str(child.pid), "--mount", "sh", "-c", command], check=True
            )

        await until_unmounted(inside, f"umount {prefix}")
        await history.catalog.until_degraded("prefix_away")
        await history.check(row, expected=names)
        inside(mount)
        await history.catalog.until_degraded(None)
        await history.check(row, expected=names)


@needs_dropping
async def test_an_adapter_that_cannot_be_read_for_a_while(
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
        (prefix / ".secret" / "adapter").mkdir(parents=True)
        (prefix / ".secret").chmod(0o000)
        (prefix / "link").symlink_to(prefix / ".secret" / "adapter")
        await history.catalog.until("link", AdapterState.UNKNOWN, code="not_readable")
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
