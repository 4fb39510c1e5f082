"""Revisions damaged in the store: copied again, mended where they are in use, or called damaged."""

from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Source
from loradrop.worker.store.revision_store import RevisionStore, StoreTimings
from testkit.adapters import write_adapter
from tests.worker.sources import digest_of, is_pinned, published, revisions_in, unfinished_in
from tests.worker.store.conftest import PLENTY


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
    assert is_pinned(place, source.revision)
    again.release()
    assert not is_pinned(place, source.revision)


async def test_a_revision_that_was_evicted_is_digested_again_however_it_came_back(
    store: RevisionStore, prefix: Path, place: Path
) -> None:
    source = published(prefix)
    eager = RevisionStore(place, max_bytes=0, timings=StoreTimings(young_seconds=0.0))
    (await eager.obtain(source)).release()
    eager.evict()
    neighbours = await store.obtain(source)
    (neighbours.directory / "adapter_config.json").write_text("{}")
    neighbours.release()
    again = await eager.obtain(source)
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
    assert revisions_in(place) == set(), "it is not offered any more"


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
        assert reader.read() == b"?" * weights.stat().st_size, "a reader of the old file keeps it"
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
