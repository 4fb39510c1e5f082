"""The watcher goes on whatever it finds around it."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.store import Connection
from loradrop.catalog.wire import encode_adapter
from loradrop.watcher.settings import NotifierChoice
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, READY, SOON, Catalog, watching


@pytest.mark.parametrize("notifier", [NotifierChoice.INOTIFY, NotifierChoice.WATCHDOG])
async def test_without_a_writable_temporary_directory_the_prefix_is_rescanned(
    notifier: NotifierChoice,
    connection: Connection,
    prefix: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))  # as on a read-only root
    write_adapter(prefix / "old")
    async with watching(connection, prefix, **SOON, notifier=notifier, interval_seconds=0.2) as catalog:
        await catalog.until("old", READY)
        await catalog.until_degraded("notifier_unavailable")
        publish_adapter(prefix, "new")
        await catalog.until("new", READY)
        status = await catalog.status()
        assert status is not None
        assert status.mode == "rescan"


@pytest.mark.parametrize("rubbish", ["rubbish", "9" * 5000, f"{'9' * 5000}:1:1"], ids=len)
@pytest.mark.parametrize("field", ["seq", "fence", "epoch", "root"])
async def test_what_is_not_ours_in_the_catalogs_own_fields_is_mended(
    field: str, rubbish: str, connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"sql"})
        await connection.commands.hset(connection.keys.meta, field, rubbish)
        publish_adapter(prefix, "math")

        async def is_mended() -> bool:
            try:
                served = {n for n, a in (await catalog.reader.listing()).adapters.items() if a.revision}
            except (CatalogUnavailable, ValueError):
                return False
            return served == {"sql", "math"}

        await wait_until(is_mended, timeout=PATIENCE_SECONDS, description="the catalog is mended")


@pytest.mark.parametrize("rubbish", ["rubbish", "9" * 5000, f"{'9' * 5000}:1:1"], ids=len)
@pytest.mark.parametrize("field", ["seq", "fence", "schema", "root"])
async def test_a_watcher_starts_with_what_is_not_ours(
    field: str, rubbish: str, connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"sql"})
    await connection.commands.hset(connection.keys.meta, field, rubbish)
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("sql", READY)
        publish_adapter(prefix, "math")
        await catalog.until("math", READY)


async def test_records_that_no_scan_could_have_made_are_withdrawn_and_stop_no_other(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON, interval_seconds=0.2) as catalog:
        ready = await catalog.until("sql", READY)
        (directory / "adapter_model.safetensors").write_bytes(b"")
        torn = await catalog.until("sql", AdapterState.INCOMPLETE)
    naive = encode_adapter(torn).replace('Z"', '"')
    foreign = {name: encode_adapter(replace(ready, name=name)) for name in ("x" * 300, "a\0b", "../..", "")}
    await connection.commands.hset(connection.keys.adapters, mapping={"sql": naive, **foreign})
    await connection.commands.hincrby(connection.keys.meta, "count", len(foreign))
    async with watching(connection, prefix, **SOON, interval_seconds=0.2) as catalog:
        publish_adapter(prefix, "math")
        await catalog.until("math", READY)
        await catalog.until("sql", AdapterState.INCOMPLETE)
        await wait_until(
            lambda: _names(catalog, {"sql", "math"}),
            timeout=PATIENCE_SECONDS,
            description="only ours are left",
        )


async def _names(catalog: Catalog, names: set[str]) -> bool:
    return (await catalog.adapters()).keys() == names
