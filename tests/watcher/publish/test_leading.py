"""One watcher publishes and gives its place back at its end; the others stand by, and take over."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.status import WatcherMode, WatcherStatus
from loradrop.catalog.store import Connection, Publisher
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, SOON, Catalog, watching


@contextmanager
def process(prefix: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A watcher as a process of its own."""
    flags = ["--lora-dir-prefix", str(prefix), "--redis-url", url, "--lora-settle", "0.2"]
    child = subprocess.Popen([sys.executable, "-m", "loradrop.watcher", *flags], stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


async def test_the_lease_is_given_back_at_the_end(connection: Connection, prefix: Path) -> None:
    async with watching(connection, prefix) as catalog:
        assert await catalog.status() is not None
    assert await catalog.status() is None


async def test_a_second_watcher_stands_by_and_takes_over(
    connection: Connection, prefix: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Publisher(connection, owner="another-host:1:1")
    await first.lead()
    await first.report(
        WatcherStatus(
            owner="another-host:1:1", prefix="/p", mode=WatcherMode.RESCAN, heartbeat_at=datetime.now(UTC)
        )
    )
    write_adapter(prefix / "sql")
    with caplog.at_level(logging.INFO):
        async with watching(connection, prefix, **SOON) as catalog:
            await wait_until(
                lambda: "Watcher stands by owner=another-host:1:1" in caplog.text,
                timeout=PATIENCE_SECONDS,
                description="it stands by",
            )
            assert await catalog.adapters() == {}
            await first.resign()
            await catalog.until("sql", AdapterState.READY)


async def test_the_lease_of_a_killed_watcher_on_this_host_is_taken_at_once(
    connection: Connection, prefix: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_adapter(prefix / "sql")
    catalog = Catalog(connection)
    with process(prefix, connection.url) as child:
        await catalog.until("sql", AdapterState.READY)
        child.kill()
        child.wait()
        status = await catalog.status()
        assert status is not None
    with caplog.at_level(logging.INFO):
        async with watching(connection, prefix, **SOON):
            await wait_until(
                lambda: f"Lease of a dead watcher is taken over owner={status.owner}" in caplog.text,
                timeout=PATIENCE_SECONDS,
                description="the lease is taken over",
            )


async def test_a_watcher_that_lost_its_lease_publishes_nothing_and_stands_by(
    connection: Connection, prefix: Path
) -> None:
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_scanned()
        await connection.commands.delete(connection.keys.watcher)
        other = Publisher(connection, owner="another-host:1:1")
        await other.lead()
        publish_adapter(prefix, "sql")

        async def is_standing_by() -> bool:
            return await connection.commands.hget(connection.keys.watcher, "prefix") is None

        await wait_until(is_standing_by, timeout=PATIENCE_SECONDS, description="only the other reports")
        assert await catalog.adapters() == {}
        await other.resign()
        await catalog.until("sql", AdapterState.READY)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_process_cleanly(
    number: signal.Signals, connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    catalog = Catalog(connection)
    with process(prefix, connection.url) as child:
        await catalog.until("sql", AdapterState.READY)
        os.kill(child.pid, number)
        ended = await asyncio.to_thread(child.wait, 10)
        assert ended == 0
    assert await catalog.status() is None
