"""A large adapter is copied in steps: each is permitted, and what changes between two is no copy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Copy, Source, copy_adapter, digest_copy
from testkit.adapters import write_adapter

WEIGHTS = "adapter_model.safetensors"
STEP_BYTES = 1 << 20


@pytest.fixture
def weights(prefix: Path) -> Path:
    """Weights of more than two steps, last written long ago."""
    weights = write_adapter(prefix / "sql") / WEIGHTS
    with weights.open("ab") as file:
        file.write(b"x" * 2 * STEP_BYTES)
    os.utime(weights, (1, 1))  # whatever is written now has another time, however coarse the kernel's are
    return weights


def copied(prefix: Path, tmp_path: Path, *, after_a_step: Callable[[], object]) -> Copy:
    """Copy the adapter, and do something to the disk once the first step has been read."""
    pending = [after_a_step]

    def permit(_count: int) -> None:
        if pending:
            pending.pop()()

    (into := tmp_path / "copy").mkdir()
    copy = copy_adapter(Source(prefix, "sql"), into, permit)
    assert copy.revision == digest_copy(into)
    return copy


def test_weights_that_are_cut_while_they_are_copied_are_no_copy(
    weights: Path, prefix: Path, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match="changed_while_copied"):
        copied(prefix, tmp_path, after_a_step=lambda: os.truncate(weights, STEP_BYTES + 200))


def test_weights_that_grow_while_they_are_copied_are_no_copy(
    weights: Path, prefix: Path, tmp_path: Path
) -> None:
    with weights.open("ab", buffering=0) as file, pytest.raises(Failed, match="changed_while_copied"):
        copied(prefix, tmp_path, after_a_step=lambda: file.write(b"more"))


def test_no_more_is_copied_of_weights_that_grow_than_they_had(
    weights: Path, prefix: Path, tmp_path: Path
) -> None:
    before = weights.stat().st_size
    with pytest.raises(Failed, match="changed_while_copied"):
        copied(prefix, tmp_path, after_a_step=lambda: os.truncate(weights, 64 * STEP_BYTES))
    assert (tmp_path / "copy" / WEIGHTS).stat().st_size <= before


def test_weights_rewritten_in_place_while_they_are_copied_are_no_copy(
    weights: Path, prefix: Path, tmp_path: Path
) -> None:
    with weights.open("r+b", buffering=0) as file, pytest.raises(Failed, match="changed_while_copied"):
        copied(prefix, tmp_path, after_a_step=lambda: file.write(b"other"))


def test_weights_replaced_by_a_rename_while_they_are_copied_are_still_one_whole_copy(
    weights: Path, prefix: Path, tmp_path: Path
) -> None:
    before = digest_copy(weights.parent)
    other = write_adapter(tmp_path / "other", seed=2) / WEIGHTS
    # The old file lives on while it is open; its change time tells that its name went.
    try:
        assert copied(prefix, tmp_path, after_a_step=lambda: other.rename(weights)).revision == before
    except Failed as failed:
        assert failed.reason.code == "changed_while_copied"  # either is right


def test_a_copy_asks_before_it_reads_on_and_stops_where_it_may_not(
    weights: Path, prefix: Path, tmp_path: Path
) -> None:
    asked: list[int] = []

    def permit(count: int) -> None:
        asked.append(count)
        if len(asked) == 2:
            raise Failed("copy_timed_out", "Long enough.")

    (into := tmp_path / "copy").mkdir()
    with pytest.raises(Failed, match="copy_timed_out"):
        copy_adapter(Source(prefix, "sql"), into, permit)
    assert asked == [STEP_BYTES, STEP_BYTES]
