"""A short run of what `make chaos` does at length, and the judge of the record itself."""

from pathlib import Path

import pytest

from tests.chaos.record import Entry, Record, broken
from tests.chaos.run import Plan, run

pytestmark = pytest.mark.faults


async def test_every_invariant_holds_through_a_few_faults(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    try:
        faults = await run(Plan(tmp_path, seed=1, seconds=15, workers=4), record)
    finally:
        record.close()
    assert faults == [], f"the record is {record.path}"
    assert {"fault", "answered", "removed", "loaded"} <= {entry["what"] for entry in record.entries}


def entry(who: str, what: str, **facts: object) -> Entry:
    return {"who": who, "what": what, **facts}


WROTE = entry("writer", "wrote", name="a", revision="1")


@pytest.mark.parametrize(
    ("seen", "invariant"),
    [
        ([entry("w", "loaded", name="a", revision="2")], "never_partial"),
        ([entry("w", "listed", name="b", revision="1")], "never_partial"),
        ([entry("w", "violation", why="two loads at once")], "never_partial"),
        ([entry("w", "unlisted", name="a")], "never_dropped_on_doubt"),
        ([entry("w", "unloaded", name="a", revision="1")], "never_dropped_on_doubt"),
        ([entry("w", "withdrawn", name="a", revision="1")], "never_dropped_on_doubt"),
        ([entry("w", "moved", epoch="e", seq=seq) for seq in (2, 1)], "never_back"),
        ([entry("w", "moved", epoch=epoch, seq=1) for epoch in "efe"], "never_back"),
        ([entry("w", "loaded", name="a", revision="1")] * 2, "loaded_once"),
        ([entry("w", "answered", name="a", revision="2")], "answered_from_what_was_written"),
        ([entry("w", "refused", name="a", why="gone")], "answered_from_what_was_written"),
    ],
)
def test_what_breaks_an_invariant_is_found(seen: list[Entry], invariant: str) -> None:
    assert [fault.partition(":")[0] for fault in broken([WROTE, *seen])] == [invariant]


def test_what_follows_the_disk_breaks_nothing() -> None:
    seen = [
        entry("w", "moved", epoch="e", seq=1),
        entry("w", "listed", name="a", revision="1"),
        entry("w", "loaded", name="a", revision="1"),
        entry("w", "answered", name="a", revision="1"),
        entry("writer", "removed", name="a"),
        entry("w", "moved", epoch="f", seq=1),
        entry("w", "unlisted", name="a"),
        entry("w", "withdrawn", name="a", revision="1"),
        entry("w", "unloaded", name="a", revision="1"),
    ]
    assert broken([WROTE, *seen]) == []
