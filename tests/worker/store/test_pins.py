"""Pins: what is in use is known to every process, and what went away in between is not taken for it."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from loradrop.worker.store.pins import PIN, exclusively, last_used, note_use, pin
from testkit.waiting import wait_until_sync
from tests.catalog.values import revision

A = revision("a")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / A
    directory.mkdir()
    (directory / PIN).touch()
    return directory


def times_open(path: Path) -> int:
    return sum(file.path == str(path) for file in psutil.Process().open_files())


def is_free(directory: Path) -> bool:
    with exclusively(directory / PIN) as ours:
        return ours


def test_what_is_pinned_cannot_be_owned_until_every_pin_is_released(directory: Path) -> None:
    first, second = pin(directory, A), pin(directory, A)
    assert first is not None
    assert second is not None
    assert not is_free(directory)
    first.release()
    assert not is_free(directory)
    second.release()
    assert is_free(directory)


def test_what_is_not_there_is_not_pinned(tmp_path: Path) -> None:
    assert pin(tmp_path / "nowhere", A) is None
    assert not is_free(tmp_path / "nowhere")


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_is_evicted_the_moment_it_is_pinned_is_not_pinned(directory: Path, comes_back: bool) -> None:
    with ThreadPoolExecutor(1) as other:
        with exclusively(directory / PIN) as ours:
            assert ours
            pinned = other.submit(pin, directory, A)
            wait_until_sync(
                lambda: times_open(directory / PIN) == 2, timeout=5, description="it waits for the lock"
            )
            directory.rename(directory.with_name("evicted"))
            if comes_back:  # another process copied it again
                directory.mkdir()
                (directory / PIN).touch()
        assert pinned.result(timeout=5) is None
    assert is_free(directory.with_name("evicted")), "no lock is left behind"


def test_a_use_is_noted_where_every_process_sees_it(directory: Path) -> None:
    os.utime(directory / PIN, (1000.0, 1000.0))
    assert last_used(directory) == 1000.0
    note_use(directory)
    assert last_used(directory) > 1000.0


def test_what_goes_away_was_used_just_now(tmp_path: Path) -> None:
    before = time.time()
    assert last_used(tmp_path / "nowhere") >= before
