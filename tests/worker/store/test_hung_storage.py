"""A store whose prefix does not answer: deadlines, copies that come late, and a bound on the bandwidth."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Source
from loradrop.worker.store.rate_limit import Bandwidth
from loradrop.worker.store.revision_store import RevisionStore
from testkit.waiting import wait_until
from tests.worker.sources import HungStorage, hung_storage, is_pinned, published, revisions_in, unfinished_in
from tests.worker.store.conftest import PLENTY


async def test_storage_that_hangs_is_given_up_and_what_came_late_is_not_kept_from_eviction(
    store: RevisionStore, prefix: Path, place: Path, storage: HungStorage
) -> None:
    source = published(prefix)
    storage.hung.add("sql")
    with pytest.raises(Failed, match="copy_timed_out"):
        await store.obtain(source)
    storage.thaw()
    await wait_until(lambda: not store._copies._hung, timeout=5, description="the thread has ended")
    assert revisions_in(place) == {source.revision}, "the copy came late, and is good"
    assert not is_pinned(place, source.revision)
    assert unfinished_in(place) == []


async def test_hung_copies_do_not_keep_others_from_being_made(
    store: RevisionStore,
    prefix: Path,
    storage: HungStorage,
    patience: Callable[[], None],
) -> None:
    hung = [published(prefix, f"h{seed}", seed=seed) for seed in range(1, 7)]
    storage.hung |= {source.path for source in hung}
    outcomes = await asyncio.gather(*(store.obtain(source) for source in hung), return_exceptions=True)
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    good = published(prefix, "good", seed=9)
    patience()
    assert (await store.obtain(good)).revision == good.revision


async def test_many_hung_copies_are_said_and_end_with_the_storage_coming_back(
    store: RevisionStore,
    prefix: Path,
    storage: HungStorage,
    monkeypatch: pytest.MonkeyPatch,
    patience: Callable[[], None],
) -> None:
    monkeypatch.setattr("loradrop.worker.store.deadline_threads._MAX_HUNG", 2)
    hung = [published(prefix, f"h{seed}", seed=seed) for seed in (1, 2, 3)]
    storage.hung |= {source.path for source in hung}
    for source in hung[:2]:
        with pytest.raises(Failed, match="copy_timed_out"):
            await store.obtain(source)
    with pytest.raises(Failed, match="storage_hung"):
        await store.obtain(hung[2])
    storage.thaw()
    await wait_until(lambda: not store._copies._hung, timeout=5, description="the threads have ended")
    patience()
    assert (await store.obtain(hung[2])).revision == hung[2].revision


async def test_what_is_in_the_store_is_served_while_the_prefix_hangs(
    store: RevisionStore, prefix: Path, monkeypatch: pytest.MonkeyPatch, patience: Callable[[], None]
) -> None:
    kept, hung = published(prefix, "kept", seed=1), published(prefix, "hung", seed=2)
    (await store.obtain(kept)).release()
    monkeypatch.setattr("loradrop.worker.store.deadline_threads._MAX_HUNG", 1)
    monkeypatch.setattr("loradrop.worker.store.deadline_threads._PATIENCE_SECONDS", 0.05)
    with hung_storage(monkeypatch) as storage:
        storage.hung.add("hung")
        with pytest.raises(Failed, match="copy_timed_out"):
            await store.obtain(hung)
        patience()
        assert (await store.obtain(kept)).revision == kept.revision


async def test_a_cancelled_copy_leaves_neither_pin_nor_unfinished_directory(
    store: RevisionStore,
    prefix: Path,
    place: Path,
    storage: HungStorage,
    patience: Callable[[], None],
) -> None:
    patience()
    source = published(prefix)
    storage.hung.add("sql")
    copying = asyncio.create_task(store.obtain(source))
    await wait_until(lambda: storage.waiting == 1, timeout=5, description="the copy is under way")
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    storage.thaw()
    await wait_until(lambda: not unfinished_in(place), timeout=5, description="the thread has ended")
    await wait_until(
        lambda: not is_pinned(place, source.revision), timeout=5, description="nobody holds a pin"
    )


async def test_a_larger_adapter_is_given_more_time(
    store: RevisionStore, prefix: Path, storage: HungStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loradrop.worker.store.deadline_threads._PATIENCE_SECONDS", 0.0)
    source = published(prefix)
    large = Source(source.prefix, source.path, source.revision, size_bytes=100_000_000)
    assert (await store.obtain(large)).revision == source.revision


async def test_a_bound_on_the_bandwidth_slows_copies_down_and_fails_none(
    prefix: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loradrop.worker.store.copying._CHUNK_BYTES", 300)
    monkeypatch.setattr("loradrop.worker.store.deadline_threads._PATIENCE_SECONDS", 0.0)
    asked: list[int] = []

    def recorded(bandwidth: Bandwidth, size_bytes: int, *, now: float) -> float:
        asked.append(size_bytes)
        return 0.2

    monkeypatch.setattr(Bandwidth, "pause_after", recorded)
    published(prefix)
    source = Source(prefix, "sql", size_bytes=5_000_000)  # half a second, without the bound
    await RevisionStore(place, max_bytes=PLENTY, bytes_per_second=100.0).obtain(source)
    weights = (prefix / "sql" / "adapter_model.safetensors").stat().st_size
    assert sum(asked) == weights
    assert len(asked) > 3, "the copy paused for longer than storage is given"
