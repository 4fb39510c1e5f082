"""A store whose prefix does not answer: deadlines, copies that come late, and a bound on the bandwidth."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Copy, Permit, Source, copy_adapter
from loradrop.worker.store.deadline import Deadline
from loradrop.worker.store.revision_store import RevisionStore, StoreTimings
from testkit.waiting import wait_until
from tests.worker.sources import HungStorage, is_pinned, published, revisions_in, unfinished_in
from tests.worker.store.conftest import PLENTY


async def test_storage_that_hangs_is_given_up_and_what_came_late_is_not_kept_from_eviction(
    impatient: RevisionStore, prefix: Path, place: Path, storage: HungStorage
) -> None:
    source = published(prefix)
    storage.hung.add("sql")
    with pytest.raises(Failed, match="copy_timed_out"):
        await impatient.obtain(unnamed(source))
    storage.thaw()
    await wait_until(
        lambda: bool(revisions_in(place)) and not unfinished_in(place),
        timeout=5,
        description="the copy came late",
    )
    assert revisions_in(place) == {source.revision}, "the copy came late, and is good"
    await wait_until(
        lambda: not is_pinned(place, source.revision), timeout=5, description="its pin is released"
    )
    assert unfinished_in(place) == []


async def test_hung_copies_do_not_keep_others_from_being_made(
    impatient: RevisionStore, prefix: Path, storage: HungStorage
) -> None:
    hung = [published(prefix, f"h{seed}", seed=seed) for seed in range(1, 7)]
    storage.hung |= {source.path for source in hung}
    outcomes = await asyncio.gather(
        *(impatient.obtain(unnamed(source)) for source in hung), return_exceptions=True
    )
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    good = published(prefix, "good", seed=9)
    assert (await impatient.obtain(with_time(good))).revision == good.revision


async def test_many_hung_copies_are_said_and_end_with_the_storage_coming_back(
    impatient: RevisionStore, prefix: Path, storage: HungStorage
) -> None:
    hung = [published(prefix, f"h{seed}", seed=seed) for seed in range(17)]
    storage.hung |= {source.path for source in hung}
    outcomes = await asyncio.gather(
        *(impatient.obtain(unnamed(each)) for each in hung[:16]), return_exceptions=True
    )
    assert all("copy_timed_out" in str(outcome) for outcome in outcomes)
    with pytest.raises(Failed, match="storage_hung"):
        await impatient.obtain(unnamed(hung[16]))
    storage.thaw()
    await wait_until(lambda: not storage.waiting, timeout=5, description="the storage answers")

    async def is_obtained() -> bool:
        try:
            return (await impatient.obtain(with_time(hung[16]))).revision == hung[16].revision
        except Failed:
            return False

    await wait_until(is_obtained, timeout=20, description="the threads have ended")


async def test_what_is_in_the_store_is_served_while_the_prefix_hangs(
    store: RevisionStore, impatient: RevisionStore, prefix: Path, storage: HungStorage
) -> None:
    kept = published(prefix, "kept", seed=99)
    (await store.obtain(kept)).release()
    hung = [published(prefix, f"h{seed}", seed=seed) for seed in range(16)]
    storage.hung |= {source.path for source in hung}
    outcomes = await asyncio.gather(
        *(impatient.obtain(unnamed(each)) for each in hung), return_exceptions=True
    )
    assert all("copy_timed_out" in str(outcome) for outcome in outcomes)
    assert (await impatient.obtain(with_time(kept))).revision == kept.revision


async def test_a_cancelled_copy_leaves_neither_pin_nor_unfinished_directory(
    store: RevisionStore, prefix: Path, place: Path, storage: HungStorage
) -> None:
    source = published(prefix)
    storage.hung.add("sql")
    copying = asyncio.create_task(store.obtain(source))
    await wait_until(lambda: storage.waiting == 1, timeout=5, description="the copy is under way")
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    storage.thaw()
    await wait_until(lambda: not unfinished_in(place), timeout=5, description="the thread has ended")
    await wait_until(lambda: not is_pinned(place, source.revision), timeout=5, description="no pin is held")


async def test_a_larger_adapter_is_given_more_time(prefix: Path, place: Path) -> None:
    no_time = StoreTimings(deadline=Deadline(base_seconds=0.0))
    store = RevisionStore(place, max_bytes=PLENTY, timings=no_time)
    small, large = published(prefix, "small", seed=1), published(prefix, "large", seed=2)
    with pytest.raises(Failed, match="timed_out"):
        await store.obtain(unnamed(replace(small, size_bytes=0)))
    assert (await store.obtain(with_time(large))).revision == large.revision


async def test_a_bound_on_the_bandwidth_slows_copies_down_and_fails_none(prefix: Path, place: Path) -> None:
    """The pauses alone are ten times what storage is given without the bound."""
    source = published(prefix)
    size, seconds = source.size_bytes, 0.5
    deadline = StoreTimings(deadline=Deadline(base_seconds=seconds / 10))

    def in_pieces(source: Source, into: Path, permit: Permit) -> Copy:
        for _ in range(5):
            permit(size // 5)
        return copy_adapter(source, into, lambda _: None)

    store = RevisionStore(
        place, max_bytes=PLENTY, bytes_per_second=size / seconds, timings=deadline, copy=in_pieces
    )
    assert (await store.obtain(replace(source, revision=None))).revision == source.revision


def unnamed(source: Source) -> Source:
    """Return `source` without its revision, which is thus not looked up in the store first."""
    return replace(source, revision=None)


def with_time(source: Source) -> Source:
    """Return `source` as so large that storage is given ten seconds for it."""
    return replace(source, size_bytes=100_000_000)
