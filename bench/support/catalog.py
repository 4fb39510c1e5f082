"""A catalog without a watcher: benchmarks publish what they like."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, Adapter, AdapterState, Reason, Revision, WeightsFormat
from loradrop.catalog.revision import RevisionHasher
from loradrop.catalog.store import Connection, Publisher, Withdrawal
from testkit.adapters import write_adapter


class BenchCatalog:
    """Publishes adapters under one prefix, as the watcher would once it has proven them."""

    def __init__(self, connection: Connection, prefix: Path) -> None:
        """Publish to `connection` what lies under `prefix`."""
        self._publisher = Publisher(connection, owner="bench")
        self._prefix = prefix
        self._size = 0
        self._records: dict[Path, Adapter] = {}

    async def begin(self) -> None:
        """Make the catalog, empty and complete; digest what lies there, which a watcher does elsewhere."""
        for directory in self._prefix.iterdir():
            self._records[directory] = _record(directory.name, directory)
        await self._publisher.lead()
        await self._publisher.complete()

    async def publish(self, *names: str) -> None:
        """Publish the directories `names` of the prefix as they are now."""
        await self._write([self._record(name, name) for name in names])

    async def publish_at(self, name: str, path: str) -> None:
        """Publish under `name` what lies at `path` below the prefix."""
        await self._write([self._record(name, path)])

    async def publish_many(self, names: Sequence[str], like: str) -> None:
        """Publish each of `names` with the bytes of `like`."""
        await self._write([self._record(name, like) for name in names])

    async def withdraw(self, *names: str) -> None:
        """Take `names` out of the catalog."""
        await self._write([Withdrawal(name, Reason("removed", "The benchmark is done.")) for name in names])

    async def _write(self, changes: Sequence[Adapter | Withdrawal]) -> None:
        self._size += len(changes)
        await self._publisher.lead()
        await self._publisher.publish(changes, catalog_size=self._size)

    def _record(self, name: str, path: str) -> Adapter:
        return replace(self._records[self._prefix / path], name=name)


class Alternating:
    """A catalog of `names`, all of which change from one revision to another and back."""

    def __init__(self, prefix: Path, url: str, names: Sequence[str]) -> None:
        """Publish to the Redis at `url`; the two revisions lie under `prefix`."""
        self._prefix = prefix
        self._url = url
        self._names = names
        self._revisions = ("one", "two")
        for seed, name in enumerate(self._revisions):
            write_adapter(prefix / name, seed=seed + 1)
        self.change_all()

    def change_all(self) -> None:
        """Publish one event for each name."""
        asyncio.run(self._publish(self._revisions[0]))
        self._revisions = self._revisions[::-1]

    async def _publish(self, like: str) -> None:
        async with Connection(self._url) as connection:
            catalog = BenchCatalog(connection, self._prefix)
            await catalog.begin()
            await catalog.publish_many(self._names, like)


def _record(name: str, directory: Path) -> Adapter:
    weights = (directory / WeightsFormat.SAFETENSORS.filename).read_bytes()
    now = datetime.now(UTC)
    return Adapter(
        name=name,
        prefix=str(directory.parent),
        path=directory.name,
        revision=_revision((directory / CONFIG_FILENAME).read_bytes(), weights),
        state=AdapterState.READY,
        discovered_at=now,
        updated_at=now,
        size_bytes=len(weights),
        format=WeightsFormat.SAFETENSORS,
    )


def _revision(config: bytes, weights: bytes) -> Revision:
    hasher = RevisionHasher(WeightsFormat.SAFETENSORS, config, len(weights))
    hasher.update(weights)
    return hasher.revision()
