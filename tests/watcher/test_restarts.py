"""A watcher that starts with a catalog another left: it publishes what changed and keeps what still holds."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.store import Connection, Refreshes
from loradrop.watcher.state.removal import RemovalRule
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import ADDED, DELETED, MODIFIED, PATIENCE_SECONDS, SOON, watching


async def test_a_restarted_watcher_publishes_only_what_changed_meanwhile(
    connection: Connection, prefix: Path
) -> None:
    for name in ("keep", "change", "remove"):
        write_adapter(prefix / name)
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"keep", "change", "remove"})
    before = len(await catalog.served_events())
    write_adapter(prefix / "change", seed=2)
    write_adapter(prefix / "add")
    shutil.rmtree(prefix / "remove")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"keep", "change", "add"})

        async def is_told() -> bool:
            return len(await catalog.served_events()) >= before + 3

        await wait_until(is_told, timeout=PATIENCE_SECONDS, description="three changes are told")
    assert set((await catalog.served_events())[before:]) == {
        (ADDED, "add"),
        (MODIFIED, "change"),
        (DELETED, "remove"),
    }


async def test_after_a_restart_a_half_written_update_keeps_the_last_good_revision(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        good = await catalog.until("sql", AdapterState.READY)
    (directory / "adapter_model.safetensors").write_bytes(b"")
    async with watching(connection, prefix, **SOON) as catalog:
        torn = await catalog.until("sql", AdapterState.INCOMPLETE)
    assert (torn.revision, torn.rank, torn.discovered_at) == (good.revision, good.rank, good.discovered_at)


async def test_records_that_are_not_of_our_shape_are_replaced_or_withdrawn(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"sql"})
    for name in ("sql", "rubbish"):
        await connection.commands.hset(connection.keys.adapters, name, "{}")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("sql", AdapterState.READY)

        async def is_clean() -> bool:
            return (await catalog.reader.listing()).unreadable == frozenset()

        await wait_until(is_clean, timeout=PATIENCE_SECONDS, description="the rubbish is gone")


async def test_another_prefix_for_the_same_pool_replaces_the_old_one_once_that_is_confirmed(
    connection: Connection, prefix: Path, tmp_path: Path
) -> None:
    for number in range(6):
        write_adapter(prefix / f"a{number}")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({f"a{number}" for number in range(6)})
    write_adapter(tmp_path / "other" / "a0")
    rule = RemovalRule(grace_seconds=0.2, mass_grace_seconds=600)
    async with watching(connection, tmp_path / "other", settle=SOON["settle"], removal=rule) as catalog:
        await catalog.until_degraded("mass_removal")
        assert len(await catalog.adapters()) == 6
        await confirm(connection)
        await catalog.until_served({"a0"})
        assert (await catalog.adapters())["a0"].prefix == str(tmp_path / "other")


async def confirm(connection: Connection) -> None:
    """Say, as an operator does, that what vanished is meant to be gone."""
    request = RefreshRequest(id="confirm", at=datetime.now(UTC), confirm_removals=True)
    await Refreshes(connection).request(request)
