"""A catalog follower that runs, and the publisher it follows."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.backoff import Backoff
from loradrop.catalog.store import Connection, Publisher, Reader, Withdrawal
from loradrop.worker.fleet.catalog_follower import CatalogFollower
from loradrop.worker.serving.reconciler import Reconciler
from testkit.waiting import wait_until
from tests.catalog.values import GONE, an_adapter, revision


class Follower:
    """A catalog follower that runs, with the reconciler it feeds."""

    def __init__(
        self,
        connection: Connection,
        reconciler: Reconciler,
        warm_start: Mapping[str, Adapter] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.reconciler = reconciler
        self.moved = asyncio.Event()
        self.catalog_follower = CatalogFollower(
            Reader(connection, block_seconds=0.05),
            reconciler,
            moved=self.moved,
            warm_start=warm_start,
            backoff=backoff,
        )

    def names(self) -> list[str]:
        return [adapter.name for adapter in self.reconciler.listed()]

    async def until_names(self, *names: str) -> None:
        await wait_until(
            lambda: self.names() == list(names),
            timeout=10,
            description=f"wanted are {', '.join(names) or 'none'}",
        )

    async def until_seq(self, seq: int) -> None:
        await wait_until(
            lambda: self.catalog_follower.position.seq == seq,
            timeout=10,
            description=f"seq {seq} is observed",
        )

    async def until_stale(self) -> None:
        await wait_until(
            lambda: self.catalog_follower.position.stale is not None,
            timeout=10,
            description="the catalog is stale",
        )

    async def until_fresh(self) -> None:
        await wait_until(
            lambda: (
                self.catalog_follower.position.stale is None
                and self.catalog_follower.position.epoch is not None
            ),
            timeout=10,
            description="the catalog is followed again",
        )


@asynccontextmanager
async def following(
    url: str,
    reconciler: Reconciler,
    *,
    warm_start: Mapping[str, Adapter] | None = None,
    backoff: Backoff | None = None,
) -> AsyncIterator[Follower]:
    async with Connection(url) as connection:
        follower = Follower(connection, reconciler, warm_start, backoff)
        task = asyncio.create_task(follower.catalog_follower.run())
        try:
            yield follower
            assert not task.done(), "the follower broke"
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def publish(publisher: Publisher, *names: str, digit: str = "a") -> None:
    adapters = [an_adapter(name, revision=revision(digit)) for name in names]
    await publisher.publish(adapters, catalog_size=10)


async def withdraw(publisher: Publisher, *names: str) -> None:
    await publisher.publish([Withdrawal(name, GONE) for name in names], catalog_size=10)
