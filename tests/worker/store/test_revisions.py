"""The private store: the right bytes, copied once, and then found."""

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.store.copying import Source, copy_adapter
from loradrop.worker.store.revision_store import RevisionStore
from testkit.adapters import write_adapter
from testkit.waiting import wait_until
from tests.worker.sources import HungStorage, is_pinned, obtained, published, revisions_in, unfinished_in
from tests.worker.store.conftest import PLENTY


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
    with pytest.raises(Failed, match="not_a_file"):
        await store.obtain(source)
    with pytest.raises(Rejected, match="not_a_file"):
        await store.obtain(Source(prefix, "sql"))
    (prefix / "aside").rename(config)
    assert (await store.obtain(source)).revision == source.revision


async def test_a_linked_adapter_is_copied_where_the_operator_allows_it(
    prefix: Path, place: Path, tmp_path: Path
) -> None:
    source = published(tmp_path / "elsewhere", "sql")
    prefix.mkdir(exist_ok=True)
    (prefix / "sql").symlink_to(tmp_path / "elsewhere" / "sql")
    linked = Source(prefix, "sql", source.revision)
    with pytest.raises(Failed, match="link_escapes"):
        await RevisionStore(place, max_bytes=PLENTY).obtain(linked)
    copy = partial(copy_adapter, allow_symlinks_to=(tmp_path / "elsewhere",))
    store = RevisionStore(place, max_bytes=PLENTY, copy=copy)
    assert (await store.obtain(linked)).revision == source.revision


async def test_many_requests_for_one_revision_end_with_one_copy(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    pins = await obtained(store, *[source] * 8)
    assert {pin.directory.name for pin in pins} == revisions_in(place) == {source.revision}
    assert unfinished_in(place) == []
    for pinned in pins:
        assert is_pinned(place, source.revision)
        pinned.release()
    assert not is_pinned(place, source.revision)


async def test_an_unfinished_copy_of_a_dead_process_is_cleared_and_one_under_way_is_not(
    store: RevisionStore, prefix: Path, place: Path, storage: HungStorage
) -> None:
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


async def test_a_store_whose_revisions_directory_is_a_file_is_a_failure_that_names_the_flag(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    (place / "revisions").rmdir()
    (place / "revisions").touch()
    with pytest.raises(Failed, match=r"store_unusable.*--lora-cache-dir"):
        await store.obtain(source)
    assert unfinished_in(place) == []
