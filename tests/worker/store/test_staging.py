"""Where copies are made and revisions are deleted: nothing stays behind."""

import contextlib
import fcntl
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loradrop.worker.store.pins import PIN, exclusively, locked
from loradrop.worker.store.staging import Staging
from testkit.waiting import wait_until_sync


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "incoming")


def test_a_workspace_holds_a_pin_and_goes_with_all_that_is_in_it(staging: Staging) -> None:
    with staging.workspace() as workspace:
        assert [path.name for path in workspace.iterdir()] == [PIN]
        (workspace / "weights").write_bytes(b"half of them")
    assert list(staging.directory.iterdir()) == []


def test_a_workspace_that_was_published_stays_where_it_went(staging: Staging, tmp_path: Path) -> None:
    with staging.workspace() as workspace:
        workspace.rename(tmp_path / "published")
    assert (tmp_path / "published" / PIN).exists()
    with exclusively(tmp_path / "published") as ours:
        assert ours, "its lock is released"


def test_the_next_start_clears_what_is_not_locked_and_leaves_what_is(staging: Staging) -> None:
    (staging.directory / "dead").mkdir()
    with staging.workspace() as workspace:
        again = Staging(staging.directory)
        assert list(again.directory.iterdir()) == [workspace]


def test_only_what_is_there_is_deleted(staging: Staging, tmp_path: Path) -> None:
    (tmp_path / "revision").mkdir()
    assert staging.discard(tmp_path / "revision")
    assert not staging.discard(tmp_path / "revision")
    assert not (tmp_path / "revision").exists()
    assert list(staging.directory.iterdir()) == []


def make_workspace(staging: Staging) -> None:
    with staging.workspace():
        pass


def start(staging: Staging) -> None:
    Staging(staging.directory)


def times_open(path: Path) -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += descriptor.readlink() == path
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("other", "does"), [(fcntl.LOCK_EX, make_workspace), (fcntl.LOCK_SH, start)])
def test_no_workspace_is_made_while_a_start_clears_what_is_not_locked(
    staging: Staging, other: int, does: Callable[[Staging], None]
) -> None:
    (staging.directory / "dead").mkdir()
    with ThreadPoolExecutor(1) as thread:
        with locked(staging.directory, other):
            done = thread.submit(does, staging)
            wait_until_sync(
                lambda: times_open(staging.directory) == 2, timeout=5, description="it waits for the lock"
            )
            assert [path.name for path in staging.directory.iterdir()] == ["dead"]
        done.result(timeout=5)
