"""Links that lead to a filesystem which never answers: they are rejected unasked, and stop no other entry."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.settings import NotifierChoice
from testkit.adapters import publish_adapter, write_adapter
from testkit.hung_filesystem import hung_filesystem
from tests.watcher.running import READY, SOON, watching

LINKS = 6
"""More than there are threads to examine with."""


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    mount_point = tmp_path / "hung"
    mount_point.mkdir()
    with ExitStack() as stack:
        try:
            stack.enter_context(hung_filesystem(mount_point))
        except OSError as error:
            pytest.skip(f"may not mount: {error}")
        yield mount_point


@pytest.mark.parametrize("notifier", [NotifierChoice.INOTIFY, NotifierChoice.NONE])
async def test_links_to_a_filesystem_that_never_answers_stop_no_other_entry(
    notifier: NotifierChoice, connection: Connection, prefix: Path, hung: Path
) -> None:
    write_adapter(prefix / "old")
    write_adapter(prefix / "removed")
    (prefix / "before").symlink_to(hung / "adapter")
    async with watching(connection, prefix, **SOON, notifier=notifier, interval_seconds=0.2) as catalog:
        await catalog.until_served({"old", "removed"})
        for number in range(LINKS):
            (prefix / f"directory{number}").symlink_to(hung / "adapter")
            write_adapter(prefix / f"file{number}")
            (prefix / f"file{number}" / "adapter_config.json").unlink()
            (prefix / f"file{number}" / "adapter_config.json").symlink_to(hung / "adapter_config.json")
        rmtree(prefix / "removed")
        publish_adapter(prefix, "new")
        await catalog.until("new", READY)
        await catalog.until_served({"old", "new"})
        for name in ("before", "directory0", "file0", f"directory{LINKS - 1}", f"file{LINKS - 1}"):
            await catalog.until(name, AdapterState.REJECTED, code="link_escapes")
