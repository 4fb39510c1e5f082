"""Pins: what is in use is known to everybody, and what went away in between is not taken for it."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from loradrop.worker.store import pins
from loradrop.worker.store.pins import PIN, exclusively, last_used, note_use, pin
from tests.catalog.values import revision

A = revision("a")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / A
    directory.mkdir()
    (directory / PIN).touch()
    return directory


def is_free(directory: Path) -> bool:
    with exclusively(directory / PIN) as ours:
        return ours


def test_what_is_pinned_is_nobodys_alone_until_every_pin_is_released(directory: Path) -> None:
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
def test_what_is_evicted_the_moment_it_is_pinned_is_not_pinned(
    directory: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    real = fcntl.flock

    def evicted_first(descriptor: int, how: int) -> None:
        directory.rename(directory.with_name("evicted"))
        if comes_back:  # another process copied it again
            directory.mkdir()
            (directory / PIN).touch()
        real(descriptor, how)

    monkeypatch.setattr(pins.fcntl, "flock", evicted_first)
    assert pin(directory, A) is None
    monkeypatch.undo()
    assert is_free(directory.with_name("evicted")), "no lock is left behind"


def test_a_use_is_noted_where_everybody_sees_it(directory: Path) -> None:
    os.utime(directory / PIN, (1000.0, 1000.0))
    assert last_used(directory) == 1000.0
    note_use(directory)
    assert last_used(directory) > 1000.0


def test_what_goes_away_was_used_just_now(tmp_path: Path) -> None:
    before = time.time()
    assert last_used(tmp_path / "nowhere") >= before
