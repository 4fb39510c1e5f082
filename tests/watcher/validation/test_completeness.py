"""When the watcher says that the catalog is complete: after everything was seen, not before."""

from pathlib import Path

import redis

from loradrop.catalog.store import Connection
from testkit.adapters import publish_adapter
from testkit.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, watching


async def test_a_catalog_is_complete_once_everything_under_the_prefix_is_in_it(
    tmp_path: Path, connection: Connection, redis_url: str
) -> None:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    names = {publish_adapter(prefix, f"adapter-{number}").name for number in range(40)}

    async with watching(connection, prefix) as catalog:

        async def is_complete() -> bool:
            return bool(await catalog.adapters()) and (await catalog.reader.listing()).complete

        await wait_until(is_complete, timeout=PATIENCE_SECONDS, description="the catalog is complete")
        assert set(await catalog.adapters()) == names

        with redis.Redis.from_url(redis_url) as raw:
            raw.flushall()
        await wait_until(is_complete, timeout=PATIENCE_SECONDS, description="it is complete again")
        assert set(await catalog.adapters()) == names


async def test_a_prefix_that_is_missing_never_makes_a_catalog_complete(
    tmp_path: Path, connection: Connection
) -> None:
    async with watching(connection, tmp_path / "missing") as catalog:

        async def is_degraded() -> bool:
            status = await catalog.status()
            return status is not None and status.degraded is not None

        await wait_until(is_degraded, timeout=PATIENCE_SECONDS, description="the watcher is degraded")
        assert not (await catalog.reader.listing()).complete
