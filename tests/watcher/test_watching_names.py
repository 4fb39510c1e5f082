"""What counts as an adapter in a prefix: usable names, one of two twins, and what links lead to."""

import os
import shutil
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import ADDED, MODIFIED, PATIENCE_SECONDS, READY, SOON, fence, revision_of, watching


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
