"""Faults of writers: slow, killed, torn, preallocated, in place."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from testkit.adapters import CONFIG, lora_weights, write_adapter
from testkit.waiting import wait_until
from tests.faults.table import Row
from tests.faults.watchers import History, since
from tests.watcher.running import PATIENCE_SECONDS, watching

SETTLE_SECONDS = 0.4
SETTINGS = {"settle": SettleRule(settle_seconds=SETTLE_SECONDS), "removal": RemovalRule(grace_seconds=0.5)}


def pause(seconds: float) -> None:
    """Let time pass: here slowness itself is the fault."""
    threading.Event().wait(seconds)


def write_slowly(path: Path, content: bytes, *, chunks: int, seconds: float) -> None:
    """Write `content` in place, a chunk at a time."""
    size = -(-len(content) // chunks)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), size):
            file.write(content[start : start + size])
            pause(seconds / chunks)


async def in_thread(write: Callable[[], None]) -> None:
    """Run a writer to its end without blocking the watcher in this process."""
    action = threading.Thread(target=write)
    action.start()
    await wait_until(
        lambda: not action.is_alive(), timeout=PATIENCE_SECONDS, description="the writer is done"
    )


async def test_slow_copy(connection: Connection, prefix: Path, row: Row) -> None:
    content = lora_weights(hidden=4096, layers=8)
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        directory = prefix / "sql"
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
        weights = directory / "adapter_model.safetensors"
        await in_thread(lambda: write_slowly(weights, content, chunks=40, seconds=2.0))
        written = time.monotonic()
        assert await catalog.served_events() == []
        revision = history.note(directory)
        await history.until_revision("sql", revision)
        row.converge_seconds = since(written)
        assert await history.revisions_of("sql") == [revision]
        await history.check(row, expected=["sql"])


_KILLED_WRITER = """
import sys, time
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(sys.stdin.buffer.read())
    print("written", flush=True)
    time.sleep(60)
"""


async def test_writer_killed_at_60_percent(connection: Connection, prefix: Path, row: Row) -> None:
    content = lora_weights(seed=2, hidden=64)
    directory = write_adapter(prefix / "sql", seed=1)
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        await history.until_revision("sql", history.note(directory))
        command = [sys.executable, "-c", _KILLED_WRITER, str(directory / "adapter_model.safetensors")]
        started = time.monotonic()
        writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(content[: len(content) * 6 // 10])
        writer.stdin.close()
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
        writer.wait()
        writer.stdout.close()
        torn = await catalog.until("sql", AdapterState.INCOMPLETE, code="weights_truncated")
        row.detect_seconds = since(started)
        assert torn.reason is not None
        assert f"{len(content) * 6 // 10} of {len(content)} bytes" in torn.reason.message
        assert torn.revision in history.complete
        await history.check(row, expected=["sql"])


async def test_preallocated_file(connection: Connection, prefix: Path, row: Row) -> None:
    content = lora_weights(seed=9, hidden=1024)
    directory = prefix / "sql"
    header_bytes = 8 + int.from_bytes(content[:8], "little")

    def fill() -> None:
        with weights.open("r+b", buffering=0) as file:
            file.write(content[:header_bytes])
            for start in range(header_bytes, len(content), 4096):
                file.seek(start)
                file.write(content[start : start + 4096])
                pause(1.5 / (len(content) / 4096))

    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
        weights = directory / "adapter_model.safetensors"
        weights.write_bytes(content[:header_bytes])
        os.truncate(weights, len(content))  # complete by its header from now on
        await catalog.until("sql", AdapterState.SETTLING)
        await in_thread(fill)
        filled = time.monotonic()
        revision = history.note(directory)
        await history.until_revision("sql", revision)
        row.converge_seconds = since(filled)
        assert await history.revisions_of("sql") == [revision]
        await history.check(row, expected=["sql"])


async def test_overwritten_in_place_while_served(connection: Connection, prefix: Path, row: Row) -> None:
    directory = write_adapter(prefix / "sql", seed=1)
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        first = history.note(directory)
        await history.until_revision("sql", first)
        content = lora_weights(seed=2)
        weights = directory / "adapter_model.safetensors"
        await in_thread(lambda: write_slowly(weights, content, chunks=10, seconds=1.0))
        written = time.monotonic()
        second = history.note(directory)
        await history.until_revision("sql", second)
        row.converge_seconds = since(written)
        assert await history.revisions_of("sql") == [first, second]
        await history.check(row, expected=["sql"])


async def test_torn_pair(connection: Connection, prefix: Path, row: Row) -> None:
    directory = write_adapter(prefix / "sql", rank=16)
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        first = history.note(directory)
        await history.until_revision("sql", first)
        torn = time.monotonic()
        (directory / "adapter_config.json").write_text(json.dumps(CONFIG | {"r": 32}))
        held = await catalog.until("sql", AdapterState.REJECTED, code="config_weights_disagree")
        row.detect_seconds = since(torn)
        assert held.revision == first
        (directory / "adapter_model.safetensors").write_bytes(lora_weights(rank=32))
        mended = time.monotonic()
        second = history.note(directory)
        await history.until_revision("sql", second)
        row.converge_seconds = since(mended)
        assert await history.revisions_of("sql") == [first, second]
        await history.check(row, expected=["sql"])
