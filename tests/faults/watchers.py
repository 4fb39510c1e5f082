"""A watcher as a process of its own, in the surroundings a fault needs, and what it told all along."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.catalog.events import EventType
from loradrop.catalog.store import Connection
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import inspect_adapter
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.faults.table import Row
from tests.watcher.running import PATIENCE_SECONDS, Catalog

QUICK = (
    "--lora-settle", "0.3", "--removal-grace", "0.3", "--mass-removal-grace", "600",
    "--lora-discovery-interval", "0.5",
)  # fmt: skip
"""Flags that shorten the waiting; a mass removal is never made by itself."""
SETTINGS = {
    "settle": SettleRule(settle_seconds=0.3),
    "removal": RemovalRule(grace_seconds=0.3, mass_grace_seconds=600),
}
"""The same for a watcher within the test."""


@dataclass
class History:
    """Everything one watcher told, held against everything that was ever completely on disk."""

    catalog: Catalog
    complete: set[Revision] = field(default_factory=set)

    def note(self, directory: Path) -> Revision:
        """Remember what is completely in `directory` now."""
        revision = inspect_adapter(directory, with_revision=True).revision
        assert revision is not None
        self.complete.add(revision)
        return revision

    async def check(self, row: Row, *, removed: Iterable[str] = (), expected: Iterable[str] = ()) -> None:
        """Count what breaks the invariants: partial bytes published, removals in doubt, adapters lost."""
        events = await self.catalog.events()
        told = {event.revision for event in events if event.type in (EventType.ADDED, EventType.MODIFIED)}
        row.partial = len(told - self.complete)
        allowed = set(removed)
        row.false_removals = sum(
            1
            for event in events
            if event.type is EventType.DELETED and event.revision and event.name not in allowed
        )
        served = {name for name, adapter in (await self.catalog.adapters()).items() if adapter.revision}
        row.lost = len(set(expected) - served)

    async def revisions_of(self, name: str) -> list[Revision | None]:
        """The revisions published under `name`, in order."""
        return (await self.published())[name]

    async def published(self) -> dict[str, list[Revision | None]]:
        """The revisions published under each name, in order."""
        found: dict[str, list[Revision | None]] = defaultdict(list)
        for event in await self.catalog.events():
            if event.type in (EventType.ADDED, EventType.MODIFIED):
                found[event.name].append(event.revision)
        return found

    async def until_complete(self) -> float:
        """Wait until the catalog is said to be complete; return the seconds it took."""

        async def is_so() -> bool:
            return (await self.catalog.reader.listing()).complete

        return await wait_until(is_so, timeout=PATIENCE_SECONDS, description="the catalog is complete")

    async def until_revisions(self, wanted: Mapping[str, Revision]) -> float:
        """Wait until exactly `wanted` are served; return the seconds it took."""

        async def is_so() -> bool:
            adapters = await self.catalog.adapters()
            return {name: record.revision for name, record in adapters.items()} == wanted

        return await wait_until(
            is_so, timeout=PATIENCE_SECONDS, description=f"{len(wanted)} revisions are served"
        )

    async def until_revision(self, name: str, revision: Revision) -> float:
        """Wait until `name` is served with `revision`; return the seconds it took."""

        async def is_so() -> bool:
            record = (await self.catalog.adapters()).get(name)
            return record is not None and record.revision == revision

        return await wait_until(is_so, timeout=PATIENCE_SECONDS, description=f"{name} is {revision[:8]}")


@asynccontextmanager
async def watcher_process(
    connection: Connection, prefix: Path, *flags: str, within: Iterable[str] = (), log: Path | None = None
) -> AsyncIterator[tuple["subprocess.Popen[bytes]", History]]:
    """Run a watcher for the length of the block, started by the command `within` where one is given."""
    command = [*within, sys.executable, "-m", "loradrop.watcher", "--lora-dir-prefix", str(prefix)]
    command += ["--redis-url", connection.url, *QUICK, *flags]
    with (log or Path("/dev/null")).open("wb") as stderr:
        child = subprocess.Popen(command, stderr=stderr)
        catalog = Catalog(connection)
        try:
            await wait_until(
                lambda: _reports(catalog), timeout=PATIENCE_SECONDS, description="the watcher process leads"
            )
            yield child, History(catalog)
        finally:
            child.kill()
            child.wait()


async def _reports(catalog: Catalog) -> bool:
    return await catalog.status() is not None


def drop(history: History, prefix: Path, *names: str, seed: int = 1) -> dict[str, Revision]:
    """Drop adapters, each of its own bytes, and return what is then to be served."""
    return {
        name: history.note(publish_adapter(prefix, name, seed=seed + number))
        for number, name in enumerate(names)
    }


def since(started: float) -> float:
    """Return the seconds since `started` (`time.monotonic`)."""
    return time.monotonic() - started


def works(*command: str) -> bool:
    """Return whether this machine lets us inject a fault that way."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def write_some(prefix: Path, count: int, *, start: int = 0) -> list[str]:
    names = [f"a{number}" for number in range(start, start + count)]
    for number, name in enumerate(names):
        write_adapter(prefix / name, seed=start + number + 1)
    return names


def note_all(history: History, prefix: Path, names: Iterable[str]) -> None:
    for name in names:
        history.note(prefix / name)
