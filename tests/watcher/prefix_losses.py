"""The ways in which a prefix goes away, and a watcher to whom it happens."""

import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from loradrop.catalog.store import Connection
from loradrop.watcher.timings import Timings
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import DELETED, PATIENCE_SECONDS, SOON, Catalog, watching

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
