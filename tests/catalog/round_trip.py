"""What every way to a Redis must carry."""

from loradrop.catalog.store import Connection, Publisher, Reader, Timeouts
from tests.catalog.values import an_adapter


async def publish_and_read(url: str, *, timeouts: Timeouts | None = None) -> None:
    """Do as a watcher and a reader do: scripts, pipelines and transactions."""
    async with Connection(url, timeouts=timeouts or Timeouts()) as connection:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publisher.publish([an_adapter("one"), an_adapter("two")], catalog_size=2)
        assert set((await Reader(connection).listing()).adapters) == {"one", "two"}
