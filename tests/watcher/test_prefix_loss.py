"""Nothing disappears because a prefix went away: every way to go, with few and with many adapters."""

import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.store import Connection, Refreshes
from loradrop.watcher.timings import Timings
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.watcher.publish.test_leading import process
from tests.watcher.running import DELETED, PATIENCE_SECONDS, SOON, Catalog, watching
from tests.watcher.test_restarts import confirm

SIZES = [1, 3, 10, 200]
QUICK: dict[str, Any] = {**SOON, "interval_seconds": 0.1, "timings": Timings(heartbeat_seconds=0.1)}
ENOUGH = timedelta(seconds=1.5)
"""Three times the longest grace of a removal: what a mass removal by time would take has passed."""


@dataclass
class Scene:
    """A prefix with adapters, and the watcher that is at work on it."""

    connection: Connection
    prefix: Path
    count: int
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    catalog: Catalog = field(init=False)

    @property
    def names(self) -> set[str]:
        return {f"a{number}" for number in range(self.count)}

    @property
    def aside(self) -> Path:
        return self.prefix.with_name("aside")

    async def start(self, prefix: Path | None = None, **settings: Any) -> None:
        self.catalog = await self.stack.enter_async_context(
            watching(self.connection, prefix or self.prefix, **QUICK | settings)
        )

    async def stop(self) -> None:
        await self.stack.aclose()

    async def restart(self, prefix: Path | None = None) -> None:
        await self.stop()
        await self.start(prefix)


def vanish(prefix: Path, aside: Path) -> None:
    """As an unmounted bind mount, or `mv loras old; mkdir loras`: the same device, another directory."""
    prefix.rename(aside)
    prefix.mkdir()


def come_back(prefix: Path, aside: Path) -> None:
    shutil.rmtree(prefix)
    aside.rename(prefix)


async def renamed_and_made_anew(scene: Scene) -> None:
    vanish(scene.prefix, scene.aside)


async def renamed_and_made_anew_with_another_adapter(scene: Scene) -> None:
    vanish(scene.prefix, scene.aside)
    write_adapter(scene.prefix / "other")


async def missing_for_a_while_and_then_made_anew(scene: Scene) -> None:
    scene.prefix.rename(scene.aside)
    await scene.catalog.until_degraded("prefix_missing")
    scene.prefix.mkdir()


async def started_before_its_mount(scene: Scene) -> None:
    await scene.stop()
    vanish(scene.prefix, scene.aside)
    await scene.start()


async def started_on_the_same_directory_that_is_empty(scene: Scene) -> None:
    """As a volume of which everything but its numbers is new."""
    await scene.stop()
    scene.aside.mkdir()
    for adapter in scene.prefix.iterdir():
        adapter.rename(scene.aside / adapter.name)
    await scene.start()


async def started_on_another_prefix(scene: Scene) -> None:
    elsewhere = scene.prefix.with_name("elsewhere")
    elsewhere.mkdir()
    await scene.restart(elsewhere)


async def started_on_another_prefix_with_another_adapter(scene: Scene) -> None:
    write_adapter(scene.prefix.with_name("elsewhere") / "other")
    await scene.restart(scene.prefix.with_name("elsewhere"))


LOSSES: list[Callable[[Scene], Any]] = [
    renamed_and_made_anew,
    renamed_and_made_anew_with_another_adapter,
    missing_for_a_while_and_then_made_anew,
    started_before_its_mount,
    started_on_the_same_directory_that_is_empty,
    started_on_another_prefix,
    started_on_another_prefix_with_another_adapter,
]


async def bring_back(scene: Scene) -> None:
    if not scene.aside.exists():
        await scene.restart(scene.prefix)
    elif scene.prefix.exists() and any(scene.aside.iterdir()) and not scene.prefix.samefile(scene.aside):
        for adapter in scene.aside.iterdir():
            adapter.rename(scene.prefix / adapter.name)


async def until_more_scans(catalog: Catalog) -> None:
    """Wait until scans have gone on for as long as any removal by time would take."""
    first: list[datetime] = []

    async def have_gone_on() -> bool:
        status = await catalog.status()
        if status is None or status.last_scan_at is None:
            return False
        first.append(status.last_scan_at)
        return status.last_scan_at - first[0] > ENOUGH

    await wait_until(have_gone_on, timeout=PATIENCE_SECONDS, description="scans have gone on")


async def removed(catalog: Catalog) -> list[str]:
    return [name for kind, name in await catalog.served_events() if kind is DELETED]


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
