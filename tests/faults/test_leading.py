"""Faults of watchers: the leader killed, two of them at once."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.faults.followers import following
from tests.faults.proxy import Loses, Way, proxy_to
from tests.faults.table import Row
from tests.faults.watchers import drop, since, watcher_process
from tests.watcher.running import PATIENCE_SECONDS


@pytest.mark.parametrize("at", ["while files settle", "before the script", "after the script"])
async def test_watcher_killed(
    at: str, connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with proxy_to(urlsplit(connection.url).port or 0) as network:
        flags = ("--redis-url", network.url, "--lora-settle", "600" if at == "while files settle" else "0.3")
        async with watcher_process(connection, prefix, *flags) as (child, first):
            wanted = drop(first, prefix, "known")
            await first.until_revisions(wanted)
            network.loses = killing(child, before_the_script=at == "before the script")
            if at == "while files settle":
                wanted["sql"] = first.note(write_adapter(prefix / "sql", seed=5))
                await first.catalog.until("sql", AdapterState.SETTLING)
                child.kill()
            else:
                wanted |= drop(first, prefix, "sql", seed=5)
            await asyncio.to_thread(child.wait, PATIENCE_SECONDS)
        assert ("sql" in await first.published()) is (at == "after the script")
        killed = time.monotonic()
        async with (
            watcher_process(connection, prefix) as (_, second),
            following(connection.url, tmp_path) as fleet,
        ):
            second.complete |= first.complete
            await fleet.until_listed(wanted)
            row.converge_seconds = since(killed)
            wanted |= drop(second, prefix, "later", seed=7)
            await fleet.until_listed(wanted)
            assert await second.published() == {name: [wanted[name]] for name in wanted}, "each exactly once"
            await fleet.check(row, second, wanted)


async def test_two_watchers_at_once(connection: Connection, prefix: Path, tmp_path: Path, row: Row) -> None:
    log = tmp_path / "log"
    async with (
        watcher_process(connection, prefix, log=log) as (stale, history),
        following(connection.url, tmp_path) as fleet,
    ):
        wanted = drop(history, prefix, "known")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        stale.send_signal(signal.SIGSTOP)
        async with watcher_process(connection, prefix) as (successor, _):
            await connection.commands.pexpire(connection.keys.watcher, 1)  # its lease runs out
            wanted |= drop(history, prefix, "meanwhile", seed=5)
            await fleet.until_listed(wanted)
            woken = time.monotonic()
            stale.send_signal(signal.SIGCONT)
            await wait_until(
                lambda: "Watcher stands by" in log.read_text(),
                timeout=PATIENCE_SECONDS,
                description="the stale one stands by",
            )
            row.detect_seconds = since(woken)
            wanted |= drop(history, prefix, "then", seed=6)
            await fleet.until_listed(wanted)
            successor.kill()
            successor.wait()
        killed = time.monotonic()
        wanted |= drop(history, prefix, "later", seed=7)
        await fleet.until_listed(wanted)
        row.converge_seconds = since(killed)
        assert await history.published() == {name: [wanted[name]] for name in wanted}, "each exactly once"
        await fleet.check(row, history, wanted)


def killing(child: "subprocess.Popen[bytes]", *, before_the_script: bool) -> Loses:
    """Kill a watcher when it publishes `sql`: before the script runs, or when it has run."""
    asked = asyncio.Event()

    def loses(way: Way, chunk: bytes) -> bool:
        if way is Way.REQUEST and b'"name":"sql"' in chunk and b'"state":"ready"' in chunk:
            asked.set()
            is_lost = before_the_script
        else:
            is_lost = asked.is_set() and chunk.startswith(b"*2\r\n$2\r\nok")
        if is_lost:
            child.kill()
        return is_lost

    return loses
