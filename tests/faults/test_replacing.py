"""An adapter replaced as a whole: by renames, by links, with its times restored."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.settings import NotifierChoice
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from testkit.adapters import lora_weights, publish_adapter, write_adapter
from tests.faults.table import Row
from tests.faults.watchers import History
from tests.watcher.running import watching

SETTLE_SECONDS = 0.4


SETTINGS = {"settle": SettleRule(settle_seconds=SETTLE_SECONDS), "removal": RemovalRule(grace_seconds=0.5)}


def pause(seconds: float) -> None:
    """Let time pass: here slowness itself is the fault."""
    threading.Event().wait(seconds)


async def test_atomic_rename_in(connection: Connection, prefix: Path, row: Row) -> None:
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        revision = history.note(write_adapter(prefix.parent / "sql.aside"))
        (prefix.parent / "sql.aside").rename(prefix / "sql")
        row.detect_seconds = row.converge_seconds = await history.until_revision("sql", revision)
        await catalog.until("sql", AdapterState.READY)
        assert await history.revisions_of("sql") == [revision]
        await history.check(row, expected=["sql"])


async def test_swap_by_two_renames_with_a_gap(connection: Connection, prefix: Path, row: Row) -> None:
    directory = write_adapter(prefix / "sql", seed=1)
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        first = history.note(directory)
        await history.until_revision("sql", first)
        second = history.note(write_adapter(prefix.parent / "new", seed=2))
        directory.rename(prefix.parent / "old")
        pause(0.2)
        (prefix.parent / "new").rename(directory)
        row.converge_seconds = await history.until_revision("sql", second)
        assert await history.revisions_of("sql") == [first, second]
        await history.check(row, expected=["sql"])


async def test_flip_of_a_data_link(connection: Connection, prefix: Path, row: Row) -> None:
    """As Kubernetes' AtomicWriter does: a new hidden directory, a new link, a rename, the old one removed."""
    directory = prefix / "sql"
    history_of = [write_adapter(directory / f"..v{version}", seed=version) for version in (1, 2)]
    (directory / "..data").symlink_to("..v1")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (directory / file).symlink_to(f"..data/{file}")
    async with watching(connection, prefix, **SETTINGS, interval_seconds=0) as catalog:
        history = History(catalog)
        first = history.note(directory)
        await history.until_revision("sql", first)
        (directory / "..data_tmp").symlink_to("..v2")
        (directory / "..data_tmp").rename(directory / "..data")
        shutil.rmtree(history_of[0])
        second = history.note(directory)
        row.converge_seconds = await history.until_revision("sql", second)
        assert await history.revisions_of("sql") == [first, second]
        await history.check(row, expected=["sql"])


async def test_flip_of_a_whole_volume(connection: Connection, prefix: Path, row: Row) -> None:
    """As Kubernetes updates a mounted ConfigMap: one rename gives 200 adapters their new files at once."""
    names = [f"a{number}" for number in range(200)]
    for version in (1, 2):
        for number, name in enumerate(names):
            write_adapter(prefix / f"..v{version}" / name, seed=number + version)
    (prefix / "..data").symlink_to("..v1")
    for name in names:
        (prefix / name).symlink_to(f"..data/{name}")
    async with watching(connection, prefix, **SETTINGS, interval_seconds=0) as catalog:
        history = History(catalog)
        first = {name: history.note(prefix / name) for name in names}
        await history.until_revisions(first)
        (prefix / "..data_tmp").symlink_to("..v2")
        (prefix / "..data_tmp").rename(prefix / "..data")
        shutil.rmtree(prefix / "..v1")
        second = {name: history.note(prefix / name) for name in names}
        row.converge_seconds = await history.until_revisions(second)
        assert await history.published() == {name: [first[name], second[name]] for name in names}
        await history.check(row, expected=names)


@pytest.mark.parametrize("notifier", [NotifierChoice.AUTO, NotifierChoice.NONE])
async def test_same_size_rewrite_with_its_times_restored(
    notifier: NotifierChoice, connection: Connection, prefix: Path, row: Row
) -> None:
    async with watching(connection, prefix, **SETTINGS, notifier=notifier, interval_seconds=0.3) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        publish_adapter(prefix, "sql", seed=1)
        weights = prefix / "sql" / "adapter_model.safetensors"
        before = weights.stat()
        first = history.note(prefix / "sql")
        await history.until_revision("sql", first)
        with weights.open("r+b") as file:  # within the tick in which it may have been digested
            file.write(lora_weights(seed=2))
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        second = history.note(prefix / "sql")
        row.converge_seconds = await history.until_revision("sql", second)
        await history.check(row, expected=["sql"])
