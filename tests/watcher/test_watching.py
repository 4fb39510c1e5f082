"""From files to the catalog: what arrives, moves, goes or is bad, and what is published because of it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from testkit.adapters import CONFIG, lora_weights, publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import ADDED, DELETED, PATIENCE_SECONDS, READY, SOON, revision_of, watching


async def test_a_renamed_in_adapter_is_published_at_once(
    connection: Connection, prefix: Path, notified: dict[str, Any]
) -> None:
    async with watching(connection, prefix, **notified) as catalog:
        await catalog.until_scanned()
        made = publish_adapter(prefix, "sql", rank=8)
        record = await catalog.until("sql", READY)
        assert record.revision == revision_of(made)
        assert (record.prefix, record.path, record.rank, record.base_model) == (
            str(prefix),
            "sql",
            8,
            "tiny-llama",
        )
        assert record.size_bytes == sum(file.stat().st_size for file in made.iterdir())
        assert await catalog.served_events() == [(ADDED, "sql")]


async def test_an_arrival_is_told_in_a_single_event(connection: Connection, prefix: Path) -> None:
    async with watching(connection, prefix) as catalog:
        await catalog.until_scanned()
        publish_adapter(prefix, "sql")
        await catalog.until("sql", READY)
        shutil.rmtree(prefix / "sql")  # long after the look that makes sure of such young files
        await catalog.until_gone("sql")
        told = [(event.type, event.state) for event in await catalog.events()]
        assert told[0] == (ADDED, READY)
        assert [kind for kind, _ in told].count(ADDED) == 1
        assert AdapterState.SETTLING not in [state for _, state in told]


async def test_a_copied_adapter_is_published_once_it_rests(
    connection: Connection, prefix: Path, tmp_path: Path, notified: dict[str, Any]
) -> None:
    source = write_adapter(tmp_path / "source")
    async with watching(connection, prefix, **notified) as catalog:
        await catalog.until_scanned()
        shutil.copytree(source, prefix / "sql")
        assert (await catalog.until("sql", READY)).revision == revision_of(source)
        assert await catalog.served_events() == [(ADDED, "sql")]


async def test_a_half_copied_adapter_is_shown_with_what_is_missing(
    connection: Connection, prefix: Path
) -> None:
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_scanned()
        (prefix / "sql").mkdir()
        assert (await catalog.until("sql", AdapterState.INCOMPLETE)).reason is not None
        (prefix / "sql" / "adapter_config.json").write_text(json.dumps(CONFIG))
        await catalog.until("sql", AdapterState.INCOMPLETE, code="weights_missing")
        whole = lora_weights()
        with (prefix / "sql" / "adapter_model.safetensors").open("wb") as file:
            file.write(whole[:-100])
            file.flush()
            record = await catalog.until("sql", AdapterState.INCOMPLETE, code="weights_truncated")
            assert record.revision is None
            file.write(whole[-100:])
        await catalog.until("sql", READY)
        assert await catalog.served_events() == [(ADDED, "sql")]


async def test_a_removed_adapter_is_withdrawn(
    connection: Connection, prefix: Path, notified: dict[str, Any]
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **notified) as catalog:
        await catalog.until("sql", READY)
        shutil.rmtree(prefix / "sql")
        await catalog.until_gone("sql")
        assert await catalog.served_events() == [(ADDED, "sql"), (DELETED, "sql")]


async def test_a_renamed_adapter_moves_to_its_new_name(connection: Connection, prefix: Path) -> None:
    write_adapter(prefix / "old")
    async with watching(connection, prefix, **SOON) as catalog:
        revision = (await catalog.until("old", READY)).revision
        (prefix / "old").rename(prefix / "new")
        assert (await catalog.until("new", READY)).revision == revision
        await catalog.until_gone("old")
        write_adapter(prefix / "new", seed=5)  # and is watched under it

        async def is_updated() -> bool:
            return (await catalog.adapters())["new"].revision == revision_of(prefix / "new")

        await wait_until(is_updated, timeout=PATIENCE_SECONDS, description="the renamed one is updated")


async def test_one_bad_adapter_stops_no_other(connection: Connection, prefix: Path) -> None:
    write_adapter(prefix / "good")
    write_adapter(prefix / "bad", use_dora=True)
    os.mkfifo(write_adapter(prefix / "worse") / "pipe")
    (prefix / "worse" / "adapter_config.json").unlink()
    (prefix / "worse" / "pipe").rename(prefix / "worse" / "adapter_config.json")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("good", READY)
        await catalog.until("bad", AdapterState.REJECTED, code="dora_unsupported")
        await catalog.until("worse", AdapterState.REJECTED, code="not_a_file")
        status = await catalog.status()
        assert status is not None


async def test_counts_by_state_are_reported(connection: Connection, prefix: Path) -> None:
    write_adapter(prefix / "good")
    write_adapter(prefix / "bad", use_dora=True)
    (prefix / "empty").mkdir()
    async with watching(connection, prefix, **SOON) as catalog:

        async def are_counted() -> bool:
            status = await catalog.status()
            return status is not None and dict(status.counts) == {
                AdapterState.READY: 1,
                AdapterState.REJECTED: 1,
                AdapterState.INCOMPLETE: 1,
            }

        await wait_until(are_counted, timeout=PATIENCE_SECONDS, description="one of each is counted")
