"""Which names a worker knows: each thing that keeps one, alone, and what the catalog does not know yet."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.worker.serving.entries import Entries
from loradrop.worker.serving.entry import Entry
from tests.catalog.values import NOON, TRUNCATED, an_adapter, revision
from tests.worker.ground import Ground

A, B = revision("a"), revision("b")


@pytest.fixture
def changed() -> list[str]:
    return []


@pytest.fixture
def entries(ground: Ground, changed: list[str]) -> Entries:
    return Entries(ground.residency, is_taken=lambda _: False, changed=changed.append)


def desire(entry: Entry) -> None:
    entry.adapter = an_adapter("sql", revision=A)


def load_manually(entry: Entry) -> None:
    entry.manual = A


def begin_a_try(entry: Entry) -> None:
    entry.tries = 1


@pytest.mark.parametrize("keeps", [desire, load_manually, begin_a_try])
def test_a_name_is_kept_by_each_thing_alone(entries: Entries, keeps: Callable[[Entry], None]) -> None:
    entry = entries.get_or_add("sql")
    keeps(entry)
    entries.drop_if_empty(entry)
    assert entries.get("sql") is entry


async def test_a_name_is_kept_by_what_is_loaded_for_it_until_that_has_drained(
    entries: Entries, ground: Ground, later: Callable[[], None]
) -> None:
    entry = entries.get_or_add("sql")
    await ground.load("sql", A)
    entries.drop_if_empty(entry)
    assert entries.get("sql") is entry, "it answers"
    ground.residency.drain("sql")
    entries.drop_if_empty(entry)
    assert entries.get("sql") is entry, "it drains"
    later()
    await ground.residency.unload_unused()
    entries.drop_if_empty(entry)
    assert entries.get("sql") is None


def test_a_name_that_nothing_keeps_is_dropped(entries: Entries) -> None:
    entries.drop_if_empty(entries.get_or_add("sql"))
    assert entries.get("sql") is None
    assert list(entries) == []


async def test_a_name_that_is_removed_drains_and_is_visited_until_it_is_dropped(
    entries: Entries, ground: Ground, changed: list[str], later: Callable[[], None]
) -> None:
    entry = entries.set_desired("sql", an_adapter("sql", revision=A))
    entry.note_failed(A, Reason("disk_full", "The disk is full."), NOON)
    await ground.load("sql", A)
    changed.clear()
    entries.remove("sql")
    assert (entry.adapter, entry.fault) == (None, None)
    assert ground.residency.handle_of("sql") is None
    assert changed == ["sql"]
    assert entries.needs_visit() == [entry]
    later()
    await ground.residency.unload_unused()
    assert entries.needs_visit() == [entry], "nothing is loaded, but it is to be dropped"
    entries.drop_if_empty(entry)
    assert entries.needs_visit() == []


async def test_a_name_that_was_loaded_manually_is_not_drained_when_the_catalog_loses_it(
    entries: Entries, ground: Ground
) -> None:
    entry = entries.set_desired("sql", an_adapter("sql", revision=A))
    entry.manual = B
    handle = await ground.load("sql", B)
    entries.remove("sql")
    assert ground.residency.handle_of("sql") == handle


def test_removing_a_name_that_is_not_known_changes_nothing(entries: Entries, changed: list[str]) -> None:
    entries.remove("sql")
    assert (list(entries), changed, entries.needs_visit()) == ([], [], [])


async def test_a_name_that_comes_back_before_it_was_dropped_is_no_longer_to_be(
    entries: Entries, changed: list[str]
) -> None:
    entry = entries.get_or_add("sql")
    entry.tries = 1
    entries.remove("sql")
    assert entries.needs_visit() == [entry]
    changed.clear()
    assert entries.set_desired("sql", an_adapter("sql", revision=A)) is entry
    assert entries.needs_visit() == []
    assert changed == ["sql"]


def test_a_watcher_that_does_not_know_the_revision_leaves_it_as_it_was(entries: Entries) -> None:
    unknown = an_adapter("sql", revision=None, state=AdapterState.SETTLING, reason=TRUNCATED, size_bytes=1)
    assert entries.set_desired("sql", unknown).desired is None, "there was none before"
    entries.set_desired("sql", an_adapter("sql", revision=A, size_bytes=77))
    entry = entries.set_desired("sql", unknown)
    assert entry.adapter == replace(unknown, revision=A, size_bytes=77)
    known = replace(unknown, revision=B)
    assert entries.set_desired("sql", known).adapter == known
    rejected = replace(unknown, state=AdapterState.REJECTED)
    assert entries.set_desired("sql", rejected).adapter == rejected
