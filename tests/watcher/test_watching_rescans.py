"""What is found without notifications: by the rescan, and by reading every byte again."""

import shutil
from pathlib import Path

from loradrop.catalog.store import Connection
from loradrop.watcher.settings import NotifierChoice
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, READY, SOON, revision_of, watching


async def test_without_notifications_the_rescan_finds_everything(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "old")
    settings = {**SOON, "notifier": NotifierChoice.NONE, "interval_seconds": 0.1}
    async with watching(connection, prefix, **settings) as catalog:
        await catalog.until("old", READY)
        write_adapter(prefix / "new")
        await catalog.until("new", READY)
        shutil.rmtree(prefix / "old")
        await catalog.until_gone("old")
        status = await catalog.status()
        assert status is not None
        assert (status.mode, status.degraded) == ("rescan", None)


async def test_every_byte_is_read_again_now_and_then_where_that_is_asked_for(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    settings = {
        **SOON,
        "notifier": NotifierChoice.NONE,
        "interval_seconds": 0,
        "verify_interval_seconds": 0.1,
    }
    async with watching(connection, prefix, **settings) as catalog:
        await catalog.until("sql", READY)
        write_adapter(prefix / "sql", seed=2)

        async def is_updated() -> bool:
            return (await catalog.adapters())["sql"].revision == revision_of(prefix / "sql")

        await wait_until(is_updated, timeout=PATIENCE_SECONDS, description="the verification finds it")
