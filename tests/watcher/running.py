"""A watcher at work on real files and a real Valkey, and what the catalog says meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.events import AdapterEvent, EventType
from loradrop.catalog.status import WatcherStatus
from loradrop.catalog.store import Connection, Reader, Reports
from loradrop.watcher.settings import Settings
from loradrop.watcher.state.counters import Counters
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.timings import Timings
from loradrop.watcher.validation.inspection import inspect_adapter
from loradrop.watcher.watcher import Watcher
from testkit.adapters import publish_adapter
from testkit.waiting import wait_until

ADDED, MODIFIED, DELETED = EventType.ADDED, EventType.MODIFIED, EventType.DELETED
READY = AdapterState.READY
PATIENCE_SECONDS = 30.0
"""How long a test waits for something that takes far less; only a failure takes this long."""
SOON = {
    "settle": SettleRule(settle_seconds=0.2, unstable_after_seconds=1.0),
    "removal": RemovalRule(grace_seconds=0.2, mass_grace_seconds=0.5),
}
"""Settings that shorten what tests wait for; the rules are the same."""


@dataclass
class Catalog:
    """The catalog as readers see it."""

    connection: Connection
    counters: Counters = field(default_factory=Counters)
    reader: Reader = field(init=False)
    _events: Reader = field(init=False)
    reports: Reports = field(init=False)

    def __post_init__(self) -> None:
        self.reader = Reader(self.connection)
        self._events = Reader(self.connection, block_seconds=0.001)
        self.reports = Reports(self.connection)

    async def adapters(self) -> dict[str, Adapter]:
        try:
            return dict((await self.reader.listing()).adapters)
        except CatalogUnavailable:
            return {}

    async def events(self) -> list[AdapterEvent]:
        """Every event so far, the oldest first."""
        found: list[AdapterEvent] = []
        cursor = "0-0"
        while entries := await self._events.events_after(cursor):
            cursor = entries[-1][0]
            found += [event for _, event in entries]
        return found

    async def served_events(self) -> list[tuple[EventType, str]]:
        """The events that change what is served: (type, name)."""
        return [
            (event.type, event.name) for event in await self.events() if event.type is not EventType.NOTED
        ]

    async def status(self) -> WatcherStatus | None:
        return await self.reports.watcher()

    async def until(self, name: str, state: AdapterState, *, code: str | None = None) -> Adapter:
        """Wait until `name` is in `state` (with that reason) and return its record."""

        async def is_so() -> bool:
            record = (await self.adapters()).get(name)
            if record is None or record.state is not state:
                return False
            return code is None or (record.reason is not None and record.reason.code == code)

        await wait_until(is_so, timeout=PATIENCE_SECONDS, description=f"{name} is {state} {code or ''}")
        return (await self.adapters())[name]

    async def until_gone(self, name: str) -> float:
        async def is_so() -> bool:
            return name not in await self.adapters()

        return await wait_until(is_so, timeout=PATIENCE_SECONDS, description=f"{name} is gone")

    async def until_served(self, names: set[str]) -> float:
        """Wait until exactly `names` are served."""

        async def is_so() -> bool:
            return {n for n, a in (await self.adapters()).items() if a.revision is not None} == names

        return await wait_until(
            is_so, timeout=PATIENCE_SECONDS, description=f"exactly {len(names)} are served"
        )

    async def until_degraded(self, code: str | None) -> float:
        async def is_so() -> bool:
            status = await self.status()
            if status is None:
                return False
            return (status.degraded.code if status.degraded else None) == code

        return await wait_until(is_so, timeout=PATIENCE_SECONDS, description=f"degraded is {code}")

    async def until_complete(self) -> None:
        async def is_so() -> bool:
            try:
                return (await self.reader.listing()).complete
            except CatalogUnavailable:
                return False

        await wait_until(is_so, timeout=PATIENCE_SECONDS, description="the catalog is complete")

    async def until_scanned(self) -> None:
        async def is_so() -> bool:
            status = await self.status()
            return status is not None and status.last_scan_at is not None

        await wait_until(is_so, timeout=PATIENCE_SECONDS, description="the first scan is reported")


@asynccontextmanager
async def watching(
    connection: Connection, prefix: Path, *, timings: Timings | None = None, **settings: Any
) -> AsyncIterator[Catalog]:
    """Run a watcher for the length of the block."""
    made = Settings(prefix=prefix, redis_url=connection.url, **settings)
    async with Connection(connection.url) as own:
        watcher = Watcher(made, own, timings)
        task = asyncio.create_task(watcher.run())
        catalog = Catalog(connection, watcher.counters)
        try:
            await wait_until(
                lambda: task.done() or _leads(catalog),
                timeout=PATIENCE_SECONDS,
                description="the watcher leads",
            )
            yield catalog
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _leads(catalog: Catalog) -> bool:
    return await catalog.status() is not None


def revision_of(directory: Path) -> str | None:
    return inspect_adapter(directory, with_revision=True).revision


async def fence(catalog: Catalog, prefix: Path) -> None:
    """Return once all that was done to the prefix before has been seen: a later change came through."""
    publish_adapter(prefix, "fence", seed=99)
    await catalog.until("fence", READY)
