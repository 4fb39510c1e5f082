"""The private store: the right bytes, once, kept while anybody needs them, and no longer."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters import write_adapter
from tests.waiting import wait_until
from tests.worker.sources import (
    HungStorage,
    digest_of,
    hung_storage,
    is_pinned,
    obtained,
    published,
    revisions_in,
    unfinished_in,
)
from worker.bandwidth import Bandwidth
from worker.files import Copy, Permit, Source, copy_adapter, size_bytes
from worker.outcomes import Failed, Rejected
from worker.revisions import RevisionStore

PLENTY = 1 << 30


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    return prefix


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "loradrop"


@pytest.fixture
def store(place: Path) -> RevisionStore:
    return RevisionStore(place, max_bytes=PLENTY)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[HungStorage]:
    """Storage that may hang, and patience that ends soon; what is to go well asks for `patience` first."""
    monkeypatch.setattr("worker.storage_threads._PATIENCE_SECONDS", 0.05)
    with hung_storage(monkeypatch) as storage:
        yield storage


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give storage all the time it needs from now on."""
    return lambda: monkeypatch.setattr("worker.storage_threads._PATIENCE_SECONDS", 20.0)


async def test_a_revision_is_copied_once_and_then_found_in_the_store(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    first = await store.obtain(source)
    (prefix / "sql").rename(prefix / "gone")
    second = await store.obtain(source)
    assert first.revision == second.revision == source.revision
    assert first.directory == second.directory == place / "revisions" / str(source.revision)
    assert revisions_in(place) == {source.revision}
    assert unfinished_in(place) == []


async def test_without_a_revision_whatever_is_there_is_copied(store: RevisionStore, prefix: Path) -> None:
    source = published(prefix)
    assert (await store.obtain(Source(prefix, "sql"))).revision == source.revision


async def test_the_same_bytes_under_two_names_are_kept_once(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    one, two = published(prefix, "sql"), published(prefix, "sql2")
    first, second = await obtained(store, one, two)
    assert first.directory == second.directory
    assert len(revisions_in(place)) == 1


async def test_a_prefix_that_holds_other_bytes_by_now_is_worth_another_try(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    write_adapter(prefix / "sql", seed=2)
    with pytest.raises(Failed, match="changed_on_disk"):
        await store.obtain(source)
    assert (revisions_in(place), unfinished_in(place)) == (set(), [])


async def test_a_file_changed_into_something_unreadable_does_not_condemn_the_published_bytes(
    store: RevisionStore, prefix: Path
) -> None:
    source = published(prefix)
    config = prefix / "sql" / "adapter_config.json"
    config.rename(prefix / "aside")
    os.mkfifo(config)
    with pytest.raises(Failed, match="not_a_regular_file"):
        await store.obtain(source)
    with pytest.raises(Rejected, match="not_a_regular_file"):
        await store.obtain(Source(prefix, "sql"))
    (prefix / "aside").rename(config)
    assert (await store.obtain(source)).revision == source.revision


async def test_a_revision_damaged_in_the_store_is_copied_again(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    pinned = await store.obtain(source)
    pinned.release()
    weights = pinned.directory / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    again = await RevisionStore(place, max_bytes=PLENTY).obtain(source)
    assert digest_of(again.directory) == source.revision


async def test_a_damaged_revision_that_cannot_be_copied_again_is_a_failure(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    pinned = await store.obtain(source)
    pinned.release()
    (pinned.directory / "adapter_config.json").unlink()
    (prefix / "sql").rename(prefix / "gone")
    with pytest.raises(Failed, match="source_gone"):
        await RevisionStore(place, max_bytes=PLENTY).obtain(source)


async def test_the_least_recently_pinned_revisions_go_first(prefix: Path, place: Path) -> None:
    sources = [published(prefix, f"a{seed}", seed=seed) for seed in (1, 2, 3, 4)]
    store = RevisionStore(place, max_bytes=PLENTY)
    for source in sources[:3]:
        (await store.obtain(source)).release()
    for age, source in enumerate((sources[1], sources[2], sources[0])):
        moment = time.time() - 100 + age
        os.utime(place / "revisions" / str(source.revision) / ".pin", (moment, moment))
    store._max_bytes = 2 * size_bytes(place / "revisions" / str(sources[0].revision)) + 10
    (await store.obtain(sources[3])).release()
    assert revisions_in(place) == {sources[0].revision, sources[3].revision}
    assert unfinished_in(place) == []


async def test_a_pin_keeps_a_revision_from_other_processes_until_it_is_released(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    pinned = await store.obtain(source)
    assert is_pinned(place, source.revision)
    pinned.release()
    pinned.release()
    assert not is_pinned(place, source.revision)


async def test_a_revision_another_process_evicted_is_copied_again(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    (await store.obtain(source)).release()
    assert not is_pinned(place, source.revision)
    again = await store.obtain(source)
    assert digest_of(again.directory) == source.revision


async def test_a_store_too_small_for_what_is_in_use_says_so_and_serves_on(
    prefix: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = RevisionStore(place, max_bytes=1)
    pins = await obtained(store, published(prefix, "a1", seed=1), published(prefix, "a2", seed=2))
    assert {pin.revision for pin in pins} == revisions_in(place)
    assert "store over its size" in caplog.text


async def test_a_stray_file_in_the_store_is_no_obstacle(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    (place / "revisions" / ".DS_Store").write_bytes(b"whatever")
    (place / "incoming" / "note.txt").write_bytes(b"whatever")
    source = published(prefix)
    store = RevisionStore(place, max_bytes=1)
    assert (await store.obtain(source)).revision == source.revision
    assert (place / "revisions" / ".DS_Store").exists()


async def test_many_requests_for_one_revision_end_with_one_copy(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    pins = await obtained(store, *[source] * 8)
    assert {pin.directory.name for pin in pins} == revisions_in(place) == {source.revision}
    assert unfinished_in(place) == []


async def test_an_unfinished_copy_of_a_dead_process_is_cleared_and_one_under_way_is_not(
    store: RevisionStore,
    prefix: Path,
    place: Path,
    storage: HungStorage,
    patience: Callable[[], None],
) -> None:
    patience()
    (place / "incoming" / "dead").mkdir()
    (place / "incoming" / "dead" / "adapter_config.json").write_text("half")
    source = published(prefix)
    storage.hung.add("sql")
    copying = asyncio.create_task(store.obtain(source))
    await wait_until(lambda: storage.waiting == 1, timeout=5, description="the copy is under way")
    RevisionStore(place, max_bytes=PLENTY)
    (left,) = unfinished_in(place)
    assert left.name != "dead"
    storage.thaw()
    assert (await copying).revision == source.revision


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
    monkeypatch.setattr("worker.storage_threads._MAX_HUNG", 2)
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
    monkeypatch.setattr("worker.storage_threads._MAX_HUNG", 1)
    monkeypatch.setattr("worker.storage_threads._PATIENCE_SECONDS", 0.05)
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
    monkeypatch.setattr("worker.storage_threads._PATIENCE_SECONDS", 0.0)
    source = published(prefix)
    large = Source(source.prefix, source.path, source.revision, size_bytes=100_000_000)
    assert (await store.obtain(large)).revision == source.revision


def test_a_store_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        RevisionStore(tmp_path / "file", max_bytes=PLENTY)


async def test_a_store_that_cannot_be_written_any_more_is_a_failure_that_names_the_flag(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    (place / "incoming").rmdir()
    (place / "incoming").write_text("in the way")
    with pytest.raises(Failed, match=r"store_unusable.*--lora-cache-dir"):
        await store.obtain(source)


async def test_a_damaged_revision_in_use_elsewhere_is_mended_where_it_lies(
    store: RevisionStore, prefix: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = published(prefix)
    in_use = await store.obtain(source)
    weights = in_use.directory / "adapter_model.safetensors"
    with weights.open("rb") as reader:
        (in_use.directory / "adapter_config.json").write_text("{}")
        weights.write_bytes(b"?" * weights.stat().st_size)
        other = RevisionStore(place, max_bytes=PLENTY)
        again = await other.obtain(source)
        assert reader.read() == b"?" * weights.stat().st_size, "whoever has the old file open keeps it"
    assert again.directory == in_use.directory
    assert digest_of(in_use.directory) == source.revision
    assert "revision damaged in the store" in caplog.text
    assert unfinished_in(place) == []
    for holder in (again, in_use):
        assert is_pinned(place, source.revision)
        holder.release()
    assert not is_pinned(place, source.revision)


async def test_a_damaged_revision_that_cannot_be_mended_is_called_damaged_and_not_pinned(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    directory = write_adapter(prefix / "sql")
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    source = Source(prefix, "sql", digest_of(directory))
    in_use = await store.obtain(source)
    (in_use.directory / "adapter_model.safetensors").write_bytes(b"read before the other one")
    with pytest.raises(Failed, match=r"revision_damaged.*--lora-cache-dir"):
        await RevisionStore(place, max_bytes=PLENTY).obtain(source)
    in_use.release()
    assert not is_pinned(place, source.revision)


async def test_a_neighbours_fresh_copy_is_not_evicted_before_its_first_use(
    store: RevisionStore, prefix: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh, old = published(prefix, "fresh", seed=1), published(prefix, "old", seed=2)
    for source in (fresh, old):
        (await store.obtain(source)).release()
    moment = time.time() - 3600
    os.utime(place / "revisions" / str(old.revision) / ".pin", (moment, moment))
    neighbour = RevisionStore(place, max_bytes=1)
    mine = await neighbour.obtain(published(prefix, "mine", seed=3))
    assert revisions_in(place) == {fresh.revision, mine.revision}
    assert "store over its size" in caplog.text


async def test_a_copy_that_took_long_is_as_fresh_as_any(
    store: RevisionStore, prefix: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = published(prefix)

    def slow(source: Source, into: Path, permit: Permit) -> Copy:
        os.utime(into / ".pin", (0.0, 0.0))  # began ages ago
        return copy_adapter(source, into, permit)

    monkeypatch.setattr("worker.revisions.copy_adapter", slow)
    (await store.obtain(source)).release()
    RevisionStore(place, max_bytes=0)._evict()
    assert revisions_in(place) == {source.revision}


async def test_a_revision_last_used_in_the_future_is_not_young(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    (await store.obtain(source)).release()
    moment = time.time() + 3600
    os.utime(place / "revisions" / str(source.revision) / ".pin", (moment, moment))
    RevisionStore(place, max_bytes=0)._evict()
    assert revisions_in(place) == set()


async def test_a_bound_on_the_bandwidth_slows_copies_down_and_fails_none(
    prefix: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.files._CHUNK_BYTES", 300)
    monkeypatch.setattr("worker.storage_threads._PATIENCE_SECONDS", 0.0)
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


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room for nothing, as far as the store can see."""
    monkeypatch.setattr("worker.incoming.Incoming.free_bytes", lambda _: 0)


def make_old(place: Path, *sources: Source) -> None:
    for source in sources:
        os.utime(place / "revisions" / str(source.revision) / ".pin", (1000.0, 1000.0))


@pytest.mark.usefixtures("full_disk")
async def test_old_revisions_make_room_on_a_full_disk_for_the_next(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    old, young, in_use = (published(prefix, f"a{seed}", seed=seed) for seed in (1, 2, 3))
    (await store.obtain(old)).release()
    (await store.obtain(young)).release()
    pinned = await store.obtain(in_use)
    make_old(place, old, in_use)
    new = await store.obtain(published(prefix, "a4", seed=4))
    assert revisions_in(place) == {young.revision, pinned.revision, new.revision}


@pytest.mark.usefixtures("full_disk")
async def test_nothing_goes_in_vain_for_an_adapter_larger_than_the_store(prefix: Path, place: Path) -> None:
    old = published(prefix, "old", seed=1)
    store = RevisionStore(place, max_bytes=2 * old.size_bytes)
    (await store.obtain(old)).release()
    make_old(place, old)
    huge = replace(published(prefix, "huge", seed=2), size_bytes=3 * old.size_bytes)
    await store.obtain(huge)
    assert old.revision in revisions_in(place)
