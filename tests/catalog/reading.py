"""For tests of a reader: the keys it reads, what is published, and the next batch it follows."""

import asyncio
from collections.abc import AsyncIterator

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.store import Batch, Publisher, Withdrawal

META = "loradrop:{default}:meta"
ADAPTERS = "loradrop:{default}:adapters"
EVENTS = "loradrop:{default}:events"


async def publish(publisher: Publisher, *changes: Adapter | Withdrawal) -> None:
    await publisher.publish(changes, catalog_size=len(changes))


async def next_of(batches: AsyncIterator[Batch]) -> Batch:
    async with asyncio.timeout(10):
        return await anext(batches)
