"""A store that an operator deletes while it is used: it is made again, and filled with what is asked for."""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.revision_store import RevisionStore
from loradrop.worker.store.store_directory import StoreDirectory
from testkit.waiting import wait_until
from tests.worker.sources import digest_of, published, revisions_in


async def test_what_is_asked_for_is_copied_again(store: RevisionStore, prefix: Path, place: Path) -> None:
    source = published(prefix)
    first = await store.obtain(source)
    assert first.is_there()
    shutil.rmtree(place)
    assert not first.is_there()
    again = await store.obtain(source)
    assert digest_of(again.directory) == source.revision
    assert again.is_there()
    assert not first.is_there(), "its bytes are others, though they say the same"


async def test_of_a_revision_deleted_in_part_a_whole_copy_is_made(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    pinned = await store.obtain(source)
    for file in ("adapter_model.safetensors", ".pin"):
        (pinned.directory / file).unlink()
        assert not pinned.is_there()
    with pytest.raises(Failed):
        await store.obtain(source)
    again = await store.obtain(source)
    assert digest_of(again.directory) == source.revision
    assert revisions_in(place) == {source.revision}


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
async def test_a_file_deleted_under_a_pin_is_there_again_for_all_that_pin_it(
    store: RevisionStore, prefix: Path, file: str
) -> None:
    source = published(prefix)
    first = await store.obtain(source)
    (first.directory / file).unlink()
    again = await store.obtain(source)
    assert digest_of(again.directory) == source.revision
    assert first.is_there()


async def test_a_released_pin_is_not_there(store: RevisionStore, prefix: Path) -> None:
    pinned = await store.obtain(published(prefix))
    pinned.release()
    assert not pinned.is_there()


async def test_the_directories_are_made_again_and_meanwhile_it_is_said_that_they_are_gone(
    tmp_path: Path,
) -> None:
    place = tmp_path / "cache"
    directory = StoreDirectory(place, interval_seconds=0.01)
    assert directory.reason() is None
    shutil.rmtree(place)
    place.write_text("in the way")
    keeping = asyncio.create_task(directory.keep())
    await asyncio.sleep(0.1)
    reason = directory.reason()
    assert reason is not None
    assert reason.code == "store_gone"
    assert str(place) in reason.message
    place.unlink()
    await wait_until(lambda: directory.reason() is None, timeout=5, description="it is made again")
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
