"""Adapters made to harm the process that reads them."""

import os
from pathlib import Path

import psutil

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from testkit.adapters import publish_adapter, write_adapter
from tests.faults.table import Row
from tests.faults.watchers import watcher_process
from tests.watcher.bad_adapters import BAD


async def test_malicious_input(connection: Connection, prefix: Path, row: Row) -> None:
    async with watcher_process(connection, prefix) as (child, history):
        await history.catalog.until_scanned()
        before = psutil.Process(child.pid).memory_info().rss
        for bad in BAD:
            bad.write(prefix / bad.kind)
        huge = write_adapter(prefix / "config_of_a_gigabyte")
        os.truncate(huge / "adapter_config.json", 1 << 30)
        wide = write_adapter(prefix / "header_of_100_megabytes")
        (wide / "adapter_model.safetensors").write_bytes((100 << 20).to_bytes(8, "little"))
        os.truncate(wide / "adapter_model.safetensors", 101 << 20)
        os.rename(write_adapter(prefix / "tmpname"), os.fsencode(prefix) + b"/caf\xe9")  # noqa: PTH104 - bytes
        history.note(publish_adapter(prefix, "good"))
        for bad in BAD:
            await history.catalog.until(bad.kind, bad.state, code=bad.code)
        await history.catalog.until(huge.name, AdapterState.REJECTED, code="config_too_large")
        await history.catalog.until(wide.name, AdapterState.REJECTED, code="header_too_large")
        await history.catalog.until("caf\\xe9", AdapterState.REJECTED, code="name_unusable")
        await history.catalog.until("good", AdapterState.READY)
        grown = psutil.Process(child.pid).memory_info().rss - before
        assert grown < 80 << 20
        assert not Path("/tmp/loradrop-was-owned").exists()
        await history.check(row, expected=["good"])
