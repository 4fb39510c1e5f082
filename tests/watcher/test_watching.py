"""From files to the catalog: what people do to a prefix, and what is published because of it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from catalog.adapter import AdapterState
from catalog.events import EventType
from catalog.store import Connection
from tests.adapters import CONFIG, lora_weights, publish_adapter, write_adapter
from tests.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, Catalog, watching
from watcher.inspection import inspect_adapter
from watcher.removal import RemovalRule
from watcher.settings import NotifierChoice
from watcher.settle import SettleRule

ADDED, MODIFIED, DELETED = EventType.ADDED, EventType.MODIFIED, EventType.DELETED
READY = AdapterState.READY
SOON = {
    "settle": SettleRule(settle_seconds=0.2, unstable_after_seconds=1.0),
    "removal": RemovalRule(grace_seconds=0.2, mass_grace_seconds=0.5),
}
"""Settings that shorten what people wait for; the rules are the same."""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "prefix"
    path.mkdir()
    return path


@pytest.fixture(params=[NotifierChoice.INOTIFY, NotifierChoice.WATCHDOG])
def notified(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings under which only notifications can tell: the rescan is off."""
    return {**SOON, "notifier": request.param, "interval_seconds": 0}


def revision_of(directory: Path) -> str | None:
    return inspect_adapter(directory, with_revision=True).revision


async def fence(catalog: Catalog, prefix: Path) -> None:
    """Return once all that was done to the prefix before has been seen: a later change came through."""
    publish_adapter(prefix, "fence", seed=99)
    await catalog.until("fence", READY)


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


async def test_inotify_tells_of_a_rename_within_a_tenth_of_a_second(
    connection: Connection, prefix: Path
) -> None:
    async with watching(connection, prefix) as catalog:
        await catalog.until_scanned()
        waits = []
        for number in range(20):
            publish_adapter(prefix, f"a{number}")
            waits.append(await catalog.until_served({f"a{n}" for n in range(number + 1)}))
        assert sorted(waits)[10] < 0.1


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


async def test_a_removed_adapter_is_withdrawn(
    connection: Connection, prefix: Path, notified: dict[str, Any]
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **notified) as catalog:
        await catalog.until("sql", READY)
        shutil.rmtree(prefix / "sql")
        assert await catalog.until_gone("sql") < 2
        assert await catalog.served_events() == [(ADDED, "sql"), (DELETED, "sql")]


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


async def test_names_nobody_can_type_are_reported_and_never_served(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "with space")
    os.rename(write_adapter(prefix / "tmpname"), os.fsencode(prefix) + b"/caf\xe9")  # noqa: PTH104 - bytes
    async with watching(connection, prefix, **SOON, interval_seconds=0.2) as catalog:
        await catalog.until("with space", AdapterState.REJECTED, code="name_unusable")
        await catalog.until("caf\\xe9", AdapterState.REJECTED, code="name_unusable")
        seen = len(await catalog.events())
        await fence(catalog, prefix)
        assert len(await catalog.events()) == seen + 1
        shutil.rmtree(os.fsencode(prefix) + b"/caf\xe9")
        await catalog.until_gone("caf\\xe9")


async def test_of_two_names_that_differ_in_case_the_served_one_stays(
    connection: Connection, prefix: Path
) -> None:
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until("sql", READY)
        publish_adapter(prefix, "SQL")
        await catalog.until("SQL", AdapterState.REJECTED, code="name_twin")
        assert (await catalog.adapters())["sql"].state is READY
        shutil.rmtree(prefix / "sql")
        await catalog.until("SQL", READY)
        assert "sql" not in await catalog.adapters()


async def test_files_and_temporary_directories_in_the_prefix_are_nobodys_adapters(
    connection: Connection, prefix: Path, notified: dict[str, Any]
) -> None:
    async with watching(connection, prefix, **notified) as catalog:
        (prefix / "README.md").write_text("x")
        write_adapter(prefix / ".tmp-sql")
        write_adapter(prefix / "sql.tmp")
        await fence(catalog, prefix)
        assert set(await catalog.adapters()) == {"fence"}
        (prefix / "sql.tmp").rename(prefix / "sql")
        await catalog.until("sql", READY)


async def test_an_adapter_behind_a_link_is_followed(connection: Connection, prefix: Path) -> None:
    for version in (1, 2):
        write_adapter(prefix / ".store" / f"v{version}", seed=version)
    (prefix / "sql").symlink_to(".store/v1")
    async with watching(connection, prefix, **SOON) as catalog:
        first = (await catalog.until("sql", READY)).revision
        (prefix / "flip.tmp").symlink_to(".store/v2")
        (prefix / "flip.tmp").rename(prefix / "sql")

        async def is_flipped() -> bool:
            return (await catalog.adapters())["sql"].revision not in (None, first)

        await wait_until(is_flipped, timeout=PATIENCE_SECONDS, description="the flip is published")
        write_adapter(prefix / ".store" / "v2", seed=3)  # edited behind the link

        async def is_edited() -> bool:
            return (await catalog.adapters())["sql"].revision == revision_of(prefix / "sql")

        await wait_until(is_edited, timeout=PATIENCE_SECONDS, description="the edit is published")
        assert await catalog.served_events() == [(ADDED, "sql"), (MODIFIED, "sql"), (MODIFIED, "sql")]


async def test_two_links_to_one_directory_are_both_updated(connection: Connection, prefix: Path) -> None:
    write_adapter(prefix / ".store" / "v1")
    for name in ("one", "two"):
        (prefix / name).symlink_to(".store/v1")
    (prefix / "loop").symlink_to(".")
    async with watching(connection, prefix, **SOON) as catalog:
        await catalog.until_served({"one", "two"})
        (prefix / "one").unlink()
        await catalog.until_gone("one")
        write_adapter(prefix / ".store" / "v1", seed=2)

        async def is_updated() -> bool:
            return (await catalog.adapters())["two"].revision == revision_of(prefix / "two")

        await wait_until(is_updated, timeout=PATIENCE_SECONDS, description="the other link is updated")


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
