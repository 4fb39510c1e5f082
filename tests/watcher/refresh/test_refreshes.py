"""Manual refreshes: the only thing that looks where notifications and rescans are off."""

import asyncio
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus
from loradrop.catalog.store import Connection, Refreshes
from loradrop.watcher.settings import NotifierChoice
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from testkit.adapters import lora_weights, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, watching

BLIND: dict[str, Any] = {
    "notifier": NotifierChoice.NONE,
    "interval_seconds": 0,
    "settle": SettleRule(settle_seconds=0.3),
    "removal": RemovalRule(grace_seconds=60, mass_grace_seconds=60),
}


async def ask(connection: Connection, *names: str, **options: Any) -> str:
    request = RefreshRequest(id=secrets.token_hex(8), at=datetime.now(UTC), names=names, **options)
    await Refreshes(connection).request(request)
    return request.id


async def answered(connection: Connection, refresh_id: str) -> RefreshResult:
    refreshes = Refreshes(connection)

    async def is_so() -> bool:
        return (await refreshes.result(refresh_id)).status is not RefreshStatus.PENDING

    await wait_until(is_so, timeout=PATIENCE_SECONDS, description="the refresh is answered")
    return await refreshes.result(refresh_id)


async def refresh(connection: Connection, *names: str, **options: Any) -> RefreshResult:
    return await answered(connection, await ask(connection, *names, **options))


async def test_a_refresh_finds_what_was_added_changed_and_removed(
    connection: Connection, prefix: Path
) -> None:
    for name in ("keep", "change", "remove"):
        write_adapter(prefix / name)
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served({"keep", "change", "remove"})
        write_adapter(prefix / "add")
        write_adapter(prefix / "bad", use_dora=True)
        write_adapter(prefix / "change", seed=2)
        shutil.rmtree(prefix / "remove")
        result = await refresh(connection)
        assert result.status is RefreshStatus.SCANNED
        assert (result.discovered, result.updated, result.removed) == (("add",), ("change",), ("remove",))
        assert {name: reason.code for name, reason in result.rejected.items()} == {"bad": "dora_unsupported"}
        assert result.total == 3
        listing = await catalog.reader.listing()
        assert result.seq == listing.seq
        assert set(listing.adapters) == {"add", "bad", "change", "keep"}


async def test_a_refresh_without_changes_says_so_before_its_time_is_up(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served({"sql"})
        result = await refresh(connection, timeout_seconds=10 * PATIENCE_SECONDS)
        assert (result.discovered, result.updated, result.removed, result.total) == ((), (), (), 1)


async def test_nothing_is_noticed_without_one(connection: Connection, prefix: Path) -> None:
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_scanned()
        write_adapter(prefix / "one")
        write_adapter(prefix / "two")
        result = await refresh(connection, "two")
        assert result.discovered == ("two",)
        assert set(await catalog.adapters()) == {"two"}


async def test_a_refresh_of_names_concerns_only_them(connection: Connection, prefix: Path) -> None:
    for name in ("one", "two"):
        write_adapter(prefix / name)
    write_adapter(prefix / "bad", use_dora=True)
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served({"one", "two"})
        shutil.rmtree(prefix / "one")
        shutil.rmtree(prefix / "two")
        result = await refresh(connection, "one", "unheard-of")
        assert (result.removed, result.total, dict(result.rejected)) == (("one",), 1, {})
        assert set(await catalog.adapters()) == {"two", "bad"}


async def test_names_that_lead_elsewhere_are_not_looked_at(
    connection: Connection, prefix: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "outside")
    write_adapter(prefix / "sql.tmp")
    write_adapter(prefix / ".hidden")
    strange = ("../outside", "..", ".", "", "/etc", "a/b", "a\0b", "x" * 5000, "sql.tmp", ".hidden")
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_scanned()
        for dry_run in (False, True):
            result = await refresh(connection, *strange, dry_run=dry_run)
            assert (result.status, result.discovered, result.total) == (RefreshStatus.SCANNED, (), 0)
            assert dict(result.rejected) == {}
        assert await catalog.adapters() == {}


async def test_what_a_refresh_found_settling_is_followed_to_its_end(
    connection: Connection, prefix: Path
) -> None:
    async with watching(connection, prefix, **BLIND | {"settle": SettleRule(settle_seconds=1.0)}) as catalog:
        await catalog.until_scanned()
        write_adapter(prefix / "sql")
        result = await refresh(connection, timeout_seconds=0.2)
        assert (result.status, result.discovered) == (RefreshStatus.SCANNED, ())
        assert (await catalog.adapters())["sql"].state is AdapterState.SETTLING
        await catalog.until("sql", AdapterState.READY)


async def test_a_copy_a_refresh_came_upon_is_followed_to_its_end(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    whole = lora_weights()
    (directory / "adapter_model.safetensors").write_bytes(whole[:-1])
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until("sql", AdapterState.INCOMPLETE)
        (directory / "adapter_model.safetensors").write_bytes(whole)
        await catalog.until("sql", AdapterState.READY)


async def test_a_dry_run_tells_and_changes_nothing(connection: Connection, prefix: Path) -> None:
    for name in ("keep", "change", "remove"):
        write_adapter(prefix / name)
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served({"keep", "change", "remove"})
        before = await catalog.reader.listing()
        write_adapter(prefix / "add")
        write_adapter(prefix / "bad", use_dora=True)
        write_adapter(prefix / "change", seed=2)
        shutil.rmtree(prefix / "remove")
        result = await refresh(connection, dry_run=True)
        assert result.dry_run
        assert (result.discovered, result.updated, result.removed) == (("add",), ("change",), ("remove",))
        assert list(result.rejected) == ["bad"]
        assert (result.total, result.seq) == (3, before.seq)
        after = await catalog.reader.listing()
        assert (after.seq, after.adapters) == (before.seq, before.adapters)
        named = await refresh(connection, "add", dry_run=True)
        assert (named.discovered, named.updated, named.removed) == (("add",), (), ())


async def test_a_missing_prefix_fails_the_refresh_and_removes_nothing(
    connection: Connection, prefix: Path, tmp_path: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served({"sql"})
        shutil.move(prefix, tmp_path / "away")
        for options in ({}, {"dry_run": True}):
            result = await refresh(connection, **options)
            assert (result.status, result.removed) == (RefreshStatus.FAILED, ())
            assert result.error is not None
            assert result.error.code == "prefix_missing"
        named = await refresh(connection, "sql")
        assert named.status is RefreshStatus.FAILED
        await catalog.until_degraded("prefix_missing")
        assert (await catalog.adapters())["sql"].state is AdapterState.READY
        shutil.move(tmp_path / "away", prefix)
        assert (await refresh(connection)).status is RefreshStatus.SCANNED
        await catalog.until_degraded(None)


async def test_a_mass_removal_waits_for_a_refresh_that_confirms_it(
    connection: Connection, prefix: Path
) -> None:
    names = [f"a{number}" for number in range(6)]
    for name in names:
        write_adapter(prefix / name)
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served(set(names))
        for name in names[:5]:
            shutil.rmtree(prefix / name)
        held = await refresh(connection)
        assert (held.removed, held.total) == ((), 6)
        await catalog.until_degraded("mass_removal")
        confirmed = await refresh(connection, confirm_removals=True)
        assert confirmed.removed == tuple(names[:5])
        await catalog.until_degraded(None)
        assert set(await catalog.adapters()) == {"a5"}


async def test_a_refresh_of_a_few_names_removes_none_of_them_where_the_whole_prefix_is_empty(
    connection: Connection, prefix: Path
) -> None:
    names = [f"a{number}" for number in range(10)]
    for name in names:
        write_adapter(prefix / name)
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_served(set(names))
        prefix.rename(prefix.with_name("away"))
        prefix.mkdir()
        foreseen = await refresh(connection, *names[:4], dry_run=True)
        assert (foreseen.removed, foreseen.total) == ((), 10)
        result = await refresh(connection, *names[:4])
        assert (result.removed, result.total) == ((), 10)


async def test_a_refresh_without_an_answer_is_answered_by_the_next_watcher(
    connection: Connection, prefix: Path
) -> None:
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_scanned()
    write_adapter(prefix / "sql")
    await connection.commands.hset(connection.keys.watcher, "owner", "another")
    waiting = await ask(connection)
    await connection.commands.delete(connection.keys.watcher)
    async with watching(connection, prefix, **BLIND):
        result = await answered(connection, waiting)
        assert result.total == 1


async def test_many_refreshes_at_once_are_all_answered(connection: Connection, prefix: Path) -> None:
    async with watching(connection, prefix, **BLIND) as catalog:
        await catalog.until_scanned()
        for number in range(5):
            write_adapter(prefix / f"a{number}")
        results = await asyncio.gather(*(refresh(connection) for _ in range(20)))
        assert {result.total for result in results} == {5}
        assert {result.status for result in results} == {RefreshStatus.SCANNED}
