"""Nothing disappears because a prefix went away: every way to go, with few and with many adapters."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.store import Connection, Refreshes
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.watcher.prefix_losses import (
    LOSSES,
    QUICK,
    SIZES,
    Scene,
    bring_back,
    removed,
    renamed_and_made_anew,
    until_more_scans,
    vanish,
)
from tests.watcher.publish.test_leading import process
from tests.watcher.running import PATIENCE_SECONDS, Catalog, watching
from tests.watcher.test_restarts import confirm


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
async def test_nothing_is_removed_because_the_prefix_went_away(
    lose: Callable[[Scene], Any], count: int, connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, count)
    for number, name in enumerate(sorted(scene.names)):
        write_adapter(prefix / name, seed=number % 200 + 1)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        before = {name: record.revision for name, record in (await scene.catalog.adapters()).items()}
        await lose(scene)
        await scene.catalog.until_degraded("prefix_away")
        await until_more_scans(scene.catalog)
        assert await removed(scene.catalog) == []
        await bring_back(scene)
        await scene.catalog.until_degraded(None)
        after = {name: record.revision for name, record in (await scene.catalog.adapters()).items()}
        assert {name: after[name] for name in scene.names} == before
        assert not set(await removed(scene.catalog)) & scene.names


@pytest.mark.parametrize("count", SIZES)
async def test_what_is_removed_on_purpose_is_removed_to_the_last_one(
    count: int, connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, count)
    for name in scene.names:
        write_adapter(prefix / name)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        for name in scene.names:
            shutil.rmtree(prefix / name)
        await scene.catalog.until_served(set())
        await scene.catalog.until_degraded(None)


@pytest.mark.parametrize("count", SIZES)
async def test_the_operator_can_confirm_that_an_empty_prefix_is_meant(
    count: int, connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, count)
    for name in scene.names:
        write_adapter(prefix / name)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        await renamed_and_made_anew(scene)
        await scene.catalog.until_degraded("prefix_away")
        await confirm(connection)
        await scene.catalog.until_served(set())
        await scene.catalog.until_degraded(None)
        write_adapter(prefix / "first")
        await scene.catalog.until_served({"first"})
        shutil.rmtree(prefix / "first")  # the new directory is the one that is expected now
        await scene.catalog.until_served(set())


async def test_a_directory_that_was_refused_is_accepted_only_when_all_are_back(
    connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, 10)
    for name in scene.names:
        write_adapter(prefix / name)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        vanish(prefix, scene.aside)
        await scene.catalog.until_degraded("prefix_away")
        for name in sorted(scene.names)[1:]:
            (scene.aside / name).rename(prefix / name)
        await until_more_scans(scene.catalog)
        assert await removed(scene.catalog) == []
        (scene.aside / "a0").rename(prefix / "a0")
        await scene.catalog.until_degraded(None)
        assert await removed(scene.catalog) == []


async def test_a_few_gone_from_a_directory_that_replaced_the_prefix_are_removed(
    connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, 3)
    for name in scene.names:
        write_adapter(prefix / name)
    green = prefix.with_name("green")
    for name in ("a1", "a2", "a3"):
        write_adapter(green / name)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        prefix.rename(scene.aside)
        green.rename(prefix)
        await scene.catalog.until_served({"a1", "a2", "a3"})


async def test_a_refresh_of_a_prefix_that_is_away_is_answered_without_waiting(
    connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, 3)
    for name in scene.names:
        write_adapter(prefix / name)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        vanish(prefix, scene.aside)
        await scene.catalog.until_degraded("prefix_away")
        request = RefreshRequest(id="r", at=datetime.now().astimezone(), timeout_seconds=600)
        await Refreshes(connection).request(request)

        async def is_answered() -> bool:
            return (await Refreshes(connection).result("r")).status != "pending"

        await wait_until(is_answered, timeout=PATIENCE_SECONDS, description="it is answered")
        result = await Refreshes(connection).result("r")
        assert (result.removed, result.total) == ((), 3)


async def test_a_standby_that_sees_another_directory_removes_nothing_when_it_takes_over(
    connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, 3)
    for name in scene.names:
        write_adapter(prefix / name)
    elsewhere = prefix.with_name("elsewhere")
    elsewhere.mkdir()
    with process(prefix, connection.url) as leader:
        await Catalog(connection).until_served(scene.names)
        async with scene.stack:
            await scene.start(elsewhere)
            leader.terminate()
            leader.wait()
            await scene.catalog.until_degraded("prefix_away")
            await until_more_scans(scene.catalog)
            assert await removed(scene.catalog) == []
            for name in scene.names:
                (prefix / name).rename(elsewhere / name)
            await scene.catalog.until_degraded(None)
            assert await removed(scene.catalog) == []


async def test_what_is_removed_while_no_watcher_runs_is_removed_after_its_start(
    connection: Connection, prefix: Path
) -> None:
    scene = Scene(connection, prefix, 3)
    for name in scene.names:
        write_adapter(prefix / name)
    async with scene.stack:
        await scene.start()
        await scene.catalog.until_served(scene.names)
        await scene.stop()
        for name in ("a0", "a1"):  # most of them, but the directory is known to be the same
            shutil.rmtree(prefix / name)
        await scene.start()
        await scene.catalog.until_served({"a2"})


async def test_the_expected_directory_is_noted_again_in_a_redis_that_was_emptied(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "a0")

    async def is_noted() -> bool:
        return bool(await connection.commands.hget(connection.keys.meta, "root"))

    async with watching(connection, prefix, **QUICK):
        await wait_until(is_noted, timeout=PATIENCE_SECONDS, description="the directory is noted")
        await connection.commands.flushall()
        await wait_until(is_noted, timeout=PATIENCE_SECONDS, description="it is noted again")
