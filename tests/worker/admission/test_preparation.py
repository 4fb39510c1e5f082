"""Copy, prove, admit: what comes out is pinned and fit, or nothing is kept."""

import asyncio
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from loradrop.catalog.lora.config import LoraConfig
from loradrop.worker.admission.checks import Limits, Weights
from loradrop.worker.admission.preparation import Preparation
from loradrop.worker.admission.weights import read_adapter
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.store.copying import Source, digest_copy
from loradrop.worker.store.deadline import DEADLINE, Deadline
from loradrop.worker.store.revision_store import RevisionStore
from testkit.tiny_model import tiny_adapter_tensors, write_tiny_adapter
from testkit.waiting import wait_until
from tests.worker.sources import is_pinned

LIMITS = Limits(max_lora_rank=8, largest_value=3.4e38)
PLENTY = 1 << 30
SOON = Deadline(base_seconds=0.05, slowest_bytes_per_second=PLENTY / 20)
"""Hardly any time, but twenty seconds for a source of `PLENTY` bytes."""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


class Reads:
    """Reads private copies, and counts; does not answer for those in `hung` until `thaw`."""

    def __init__(self) -> None:
        self.count = 0
        self.hung: set[str | None] = set()
        self._thawed = threading.Event()

    def __call__(self, directory: Path, *, allow_pickle: bool) -> tuple[LoraConfig, Weights]:
        self.count += 1
        if directory.name in self.hung:
            self._thawed.wait(30)
        return read_adapter(directory, allow_pickle=allow_pickle)

    def thaw(self) -> None:
        self.hung.clear()
        self._thawed.set()


@pytest.fixture
def reads() -> Iterator[Reads]:
    reads = Reads()
    yield reads
    reads.thaw()


def preparation(
    place: Path, reads: Reads, *, allow_pickle: bool = True, deadline: Deadline = DEADLINE
) -> Preparation:
    store = RevisionStore(place, max_bytes=1 << 30)
    return Preparation(
        store, base=None, limits=LIMITS, allow_pickle=allow_pickle, read=reads, deadline=deadline
    )


async def test_a_good_adapter_comes_out_pinned(prefix: Path, place: Path, reads: Reads) -> None:
    write_tiny_adapter(prefix / "sql", seed=1)
    pinned = await preparation(place, reads).prepare(Source(prefix, "sql", digest_copy(prefix / "sql")))
    assert digest_copy(pinned.directory) == pinned.revision
    assert is_pinned(place, pinned.revision)


async def test_a_bad_adapter_is_rejected_and_not_kept_from_eviction(
    prefix: Path, place: Path, reads: Reads
) -> None:
    tensors = tiny_adapter_tensors(seed=1)
    next(iter(tensors.values()))[0, 0] = math.nan
    write_tiny_adapter(prefix / "sql", seed=1, tensors=tensors)
    with pytest.raises(Rejected, match="weights_not_finite"):
        await preparation(place, reads).prepare(Source(prefix, "sql"))
    assert not is_pinned(place, digest_copy(prefix / "sql"))


async def test_an_admitted_revision_is_not_measured_again(prefix: Path, place: Path, reads: Reads) -> None:
    write_tiny_adapter(prefix / "sql", seed=1)
    prepared = preparation(place, reads)
    first = await prepared.prepare(Source(prefix, "sql"))
    assert (await prepared.prepare(Source(prefix, "sql"))).revision == first.revision
    assert reads.count == 1


async def test_a_pickle_is_admitted_unless_pickles_are_refused(
    prefix: Path, place: Path, reads: Reads
) -> None:
    directory = write_tiny_adapter(prefix / "sql", seed=1)
    (directory / "adapter_model.safetensors").unlink()
    torch.save(tiny_adapter_tensors(seed=1), directory / "adapter_model.bin")
    with pytest.raises(Rejected, match="pickle_not_allowed"):
        await preparation(place, reads, allow_pickle=False).prepare(Source(prefix, "sql"))
    pinned = await preparation(place, reads).prepare(Source(prefix, "sql"))
    assert (pinned.directory / "adapter_model.bin").exists()


async def test_an_admission_that_hangs_is_a_failure_and_keeps_no_pin(
    prefix: Path, place: Path, reads: Reads
) -> None:
    write_tiny_adapter(prefix / "sql", seed=1)
    revision = digest_copy(prefix / "sql")
    reads.hung = {revision}
    with pytest.raises(Failed, match=r"admission_timed_out.*0 s; check the storage"):
        await preparation(place, reads, deadline=SOON).prepare(Source(prefix, "sql"))
    assert not is_pinned(place, revision)


async def test_admissions_that_hang_do_not_keep_others_from_being_made(
    prefix: Path, place: Path, reads: Reads
) -> None:
    prepared = preparation(place, reads, deadline=SOON)
    hung = [Source(prefix, write_tiny_adapter(prefix / f"h{seed}", seed=seed).name) for seed in range(1, 6)]
    reads.hung = {digest_copy(prefix / source.path) for source in hung}
    outcomes = await asyncio.gather(*(prepared.prepare(source) for source in hung), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Failed] * 5
    directory = write_tiny_adapter(prefix / "good", seed=9)
    with_time = Source(prefix, "good", size_bytes=PLENTY)
    assert (await prepared.prepare(with_time)).revision == digest_copy(directory)
    with pytest.raises(Failed, match="storage_hung"):
        await prepared.prepare(hung[0])
    reads.thaw()

    async def is_admitted() -> bool:
        try:
            await prepared.prepare(Source(prefix, "h1", size_bytes=PLENTY))
        except Failed:
            return False
        return True

    await wait_until(is_admitted, timeout=20, description="the thread has come back, and it is tried again")


def test_no_size_is_waited_for_longer_than_ten_minutes() -> None:
    assert DEADLINE.seconds_for(0) == 30.0
    assert DEADLINE.seconds_for(1_000_000_000) == 130.0
    assert DEADLINE.seconds_for(10**13) == 600.0


async def test_what_is_not_there_is_a_failure(prefix: Path, place: Path, reads: Reads) -> None:
    with pytest.raises(Failed, match="source_gone"):
        await preparation(place, reads).prepare(Source(prefix, "sql"))
