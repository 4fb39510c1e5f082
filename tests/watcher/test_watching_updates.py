"""Updates on disk: other bytes are published once they rest, and the last good revision stays until then."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.state.removal import RemovalRule
from testkit.adapters import CONFIG, lora_weights, publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import ADDED, MODIFIED, PATIENCE_SECONDS, READY, SOON, fence, revision_of, watching


async def test_other_bytes_are_a_new_revision_and_the_old_bytes_the_old_one(
    connection: Connection, prefix: Path, notified: dict[str, Any]
) -> None:
    write_adapter(prefix / "sql", seed=1)
    async with watching(connection, prefix, **notified) as catalog:
        first = (await catalog.until("sql", READY)).revision
        for seed in (2, 1):
            write_adapter(prefix / "sql", seed=seed)
            wanted = revision_of(prefix / "sql")

            async def is_published(wanted: str | None = wanted) -> bool:
                return (await catalog.adapters())["sql"].revision == wanted

            await wait_until(is_published, timeout=PATIENCE_SECONDS, description=f"seed {seed} is published")
        assert (await catalog.adapters())["sql"].revision == first
        assert await catalog.served_events() == [(ADDED, "sql"), (MODIFIED, "sql"), (MODIFIED, "sql")]


async def test_touching_and_copying_the_same_bytes_again_changes_nothing(
    connection: Connection, prefix: Path, tmp_path: Path, notified: dict[str, Any]
) -> None:
    source = write_adapter(tmp_path / "source")
    shutil.copytree(source, prefix / "sql")
    async with watching(connection, prefix, **notified) as catalog:
        await catalog.until("sql", READY)
        for file in (prefix / "sql").iterdir():
            file.touch()
            file.chmod(0o600)
        shutil.copytree(source, prefix / "sql", dirs_exist_ok=True)
        (prefix / "sql" / "README.md").write_text("nothing of ours")
        await fence(catalog, prefix)
        await catalog.until("sql", READY)
        assert await catalog.served_events() == [(ADDED, "sql"), (ADDED, "fence")]


async def test_a_swap_by_two_renames_is_an_update(
    connection: Connection, prefix: Path, tmp_path: Path
) -> None:
    write_adapter(prefix / "sql", seed=1)
    async with watching(connection, prefix, removal=RemovalRule(grace_seconds=1.0)) as catalog:
        await catalog.until("sql", READY)
        (prefix / "sql").rename(tmp_path / "old")
        await fence(catalog, prefix)  # the absence has been noticed
        made = publish_adapter(prefix, "sql", seed=2)
        wanted = revision_of(made)

        async def is_published() -> bool:
            return (await catalog.adapters())["sql"].revision == wanted

        await wait_until(is_published, timeout=PATIENCE_SECONDS, description="the new one is published")
        assert await catalog.served_events() == [(ADDED, "sql"), (ADDED, "fence"), (MODIFIED, "sql")]


async def test_while_an_update_is_incomplete_or_bad_the_last_good_revision_stays(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql", rank=4)
    async with watching(connection, prefix, **SOON) as catalog:
        good = await catalog.until("sql", READY)
        (directory / "adapter_model.safetensors").write_bytes(lora_weights()[:-1])
        torn = await catalog.until("sql", AdapterState.INCOMPLETE, code="weights_truncated")
        (directory / "adapter_model.safetensors").write_bytes(lora_weights(rank=16))
        bad = await catalog.until("sql", AdapterState.REJECTED, code="config_weights_disagree")
        for record in (torn, bad):
            assert (record.revision, record.rank, record.size_bytes) == (
                good.revision,
                good.rank,
                good.size_bytes,
            )
            assert record.discovered_at == good.discovered_at
        write_adapter(directory, rank=16)
        assert (await catalog.until("sql", READY)).rank == 16
        assert await catalog.served_events() == [(ADDED, "sql"), (MODIFIED, "sql")]


async def test_an_adapter_that_never_rests_is_reported_as_unstable(
    connection: Connection, prefix: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("sql", READY)

        async def is_unstable() -> bool:
            (directory / "adapter_config.json").write_text(json.dumps(CONFIG | {"x": os.urandom(4).hex()}))
            reason = (await catalog.adapters())["sql"].reason
            return reason is not None and reason.code == "unstable"

        await wait_until(is_unstable, timeout=PATIENCE_SECONDS, description="it is called unstable")
        assert (await catalog.adapters())["sql"].revision is not None
        await catalog.until("sql", READY)


async def test_an_update_written_beside_the_files_is_waited_for(connection: Connection, prefix: Path) -> None:
    directory = write_adapter(prefix / "sql", seed=1)
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("sql", READY)
        beside = directory / ".adapter_model.safetensors.Xy12"
        beside.write_bytes(b"")
        (directory / "adapter_config.json").write_text(json.dumps(CONFIG | {"lora_alpha": 32}))
        await catalog.until("sql", AdapterState.SETTLING, code="writer_active")
        beside.write_bytes(lora_weights(seed=2))
        beside.rename(directory / "adapter_model.safetensors")
        assert (await catalog.until("sql", READY)).revision == revision_of(directory)
        assert await catalog.served_events() == [(ADDED, "sql"), (MODIFIED, "sql")]
