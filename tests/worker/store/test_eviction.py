"""What goes from a store that is full: what is not needed any more, and nothing else."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loradrop.worker.store.copying import Copy, Permit, Source, copy_adapter, size_bytes
from loradrop.worker.store.revision_store import RevisionStore
from tests.worker.sources import digest_of, is_pinned, obtained, published, revisions_in, unfinished_in
from tests.worker.store.conftest import PLENTY


async def test_the_least_recently_pinned_revisions_go_first(prefix: Path, place: Path) -> None:
    sources = [published(prefix, f"a{seed}", seed=seed) for seed in (1, 2, 3, 4)]
    store = RevisionStore(place, max_bytes=PLENTY)
    for source in sources[:3]:
        (await store.obtain(source)).release()
    for age, source in enumerate((sources[1], sources[2], sources[0])):
        moment = time.time() - 100 + age
        os.utime(place / "revisions" / str(source.revision) / ".pin", (moment, moment))
    room_for_two = 2 * size_bytes(place / "revisions" / str(sources[0].revision)) + 10
    (await RevisionStore(place, max_bytes=room_for_two).obtain(sources[3])).release()
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


async def test_a_copy_that_took_long_is_as_fresh_as_any(prefix: Path, place: Path) -> None:
    source = published(prefix)

    def slow(source: Source, into: Path, permit: Permit, **_: object) -> Copy:
        os.utime(into / ".pin", (0.0, 0.0))  # began ages ago
        return copy_adapter(source, into, permit)

    (await RevisionStore(place, max_bytes=PLENTY, copy=slow).obtain(source)).release()
    RevisionStore(place, max_bytes=0).evict()
    assert revisions_in(place) == {source.revision}


async def test_a_revision_last_used_in_the_future_is_not_young(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    (await store.obtain(source)).release()
    moment = time.time() + 3600
    os.utime(place / "revisions" / str(source.revision) / ".pin", (moment, moment))
    RevisionStore(place, max_bytes=0).evict()
    assert revisions_in(place) == set()


def full(_directory: Path) -> int:
    """The disk has room for nothing, as far as the store can see."""
    return 0


def make_old(place: Path, *sources: Source) -> None:
    for source in sources:
        os.utime(place / "revisions" / str(source.revision) / ".pin", (1000.0, 1000.0))


async def test_old_revisions_make_room_on_a_full_disk_for_the_next(prefix: Path, place: Path) -> None:
    store = RevisionStore(place, max_bytes=PLENTY, free_bytes=full)
    old, young, in_use = (published(prefix, f"a{seed}", seed=seed) for seed in (1, 2, 3))
    (await store.obtain(old)).release()
    (await store.obtain(young)).release()
    pinned = await store.obtain(in_use)
    make_old(place, old, in_use)
    new = await store.obtain(published(prefix, "a4", seed=4))
    assert revisions_in(place) == {young.revision, pinned.revision, new.revision}


async def test_nothing_goes_in_vain_for_an_adapter_larger_than_the_store(prefix: Path, place: Path) -> None:
    old = published(prefix, "old", seed=1)
    store = RevisionStore(place, max_bytes=2 * old.size_bytes, free_bytes=full)
    (await store.obtain(old)).release()
    make_old(place, old)
    huge = replace(published(prefix, "huge", seed=2), size_bytes=3 * old.size_bytes)
    await store.obtain(huge)
    assert old.revision in revisions_in(place)


async def test_a_disk_with_just_enough_room_for_the_next_makes_nothing_go(prefix: Path, place: Path) -> None:
    old, new = published(prefix, "old", seed=1), published(prefix, "new", seed=2)
    store = RevisionStore(place, max_bytes=PLENTY, free_bytes=lambda _: new.size_bytes)
    (await store.obtain(old)).release()
    make_old(place, old)
    (await store.obtain(new)).release()
    assert revisions_in(place) == {old.revision, new.revision}


async def test_an_adapter_as_large_as_the_store_still_makes_room_on_a_full_disk(
    prefix: Path, place: Path
) -> None:
    old, new = published(prefix, "old", seed=1), published(prefix, "new", seed=2)
    store = RevisionStore(place, max_bytes=PLENTY, free_bytes=full)
    (await store.obtain(old)).release()
    make_old(place, old)
    exact = replace(new, size_bytes=PLENTY)
    (await store.obtain(exact)).release()
    assert revisions_in(place) == {new.revision}


async def test_a_store_that_is_just_full_keeps_all(prefix: Path, place: Path) -> None:
    sources = [published(prefix, f"a{seed}", seed=seed) for seed in (1, 2)]
    store = RevisionStore(place, max_bytes=PLENTY)
    for source in sources:
        (await store.obtain(source)).release()
    make_old(place, *sources)
    kept = sum(size_bytes(place / "revisions" / str(source.revision)) for source in sources)
    RevisionStore(place, max_bytes=kept).evict()
    assert revisions_in(place) == {source.revision for source in sources}
    RevisionStore(place, max_bytes=kept - 1).evict()
    assert len(revisions_in(place)) == 1, "no more goes than has to"


async def test_a_pin_makes_a_revision_young_again(prefix: Path, place: Path) -> None:
    source = published(prefix)
    store = RevisionStore(place, max_bytes=PLENTY)
    (await store.obtain(source)).release()
    make_old(place, source)
    (await store.obtain(source)).release()
    RevisionStore(place, max_bytes=0).evict()
    assert revisions_in(place) == {source.revision}


async def test_a_revision_that_is_found_only_when_it_was_copied_is_young_again(
    prefix: Path, place: Path
) -> None:
    source = published(prefix)
    store = RevisionStore(place, max_bytes=PLENTY)
    (await store.obtain(source)).release()
    make_old(place, source)
    (await store.obtain(replace(source, revision=None))).release()
    RevisionStore(place, max_bytes=0).evict()
    assert revisions_in(place) == {source.revision}
