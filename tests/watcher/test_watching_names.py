"""What counts as an adapter in a prefix: usable names, one of two that collide, what links lead to."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.printable import printable
from loradrop.catalog.store import Connection
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import ADDED, MODIFIED, PATIENCE_SECONDS, READY, SOON, fence, revision_of, watching


async def test_names_that_cannot_be_typed_are_reported_and_never_served(
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


async def test_files_and_temporary_directories_in_the_prefix_are_no_adapters(
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


async def test_a_link_that_cannot_be_followed_is_unknown_and_stops_no_other(
    connection: Connection, prefix: Path
) -> None:
    (prefix / "loop").symlink_to("loop")
    (prefix / "there").symlink_to("back")
    (prefix / "back").symlink_to("there")
    (prefix / "long").symlink_to("x" * 300)
    write_adapter(prefix / "sql")
    async with watching(connection, prefix, **SOON, interval_seconds=0.2) as catalog:
        await catalog.until("sql", READY)
        for name in ("loop", "there", "back", "long"):
            await catalog.until(name, AdapterState.UNKNOWN, code="disk_error")
        publish_adapter(prefix, "math")
        await catalog.until("math", READY)
        await catalog.until_degraded(None)
        (prefix / "loop").unlink()
        publish_adapter(prefix, "loop")
        await catalog.until("loop", READY)


async def test_no_name_can_forge_a_line_of_the_log_or_reach_a_terminal(
    connection: Connection, prefix: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a\n2026-01-01 INFO forged", "\x1b[2Jclear", "\N{RIGHT-TO-LEFT OVERRIDE}gpj", "line\u2028two"]
    with caplog.at_level(logging.DEBUG):
        async with watching(connection, prefix, **SOON) as catalog:
            for name in names:
                write_adapter(prefix / name)
            directory = write_adapter(prefix / "sql")
            (directory / ".adapter_model.safetensors.\x1b]0;title\x07").write_bytes(b"")
            await catalog.until("sql", AdapterState.SETTLING, code="writer_active")
            for name in names:
                await catalog.until(printable(name), AdapterState.REJECTED, code="name_unusable")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("loradrop")]
    assert [line for line in ours if not line.isprintable()] == []
    assert [line for line in ours if "forged" in line]
