"""A short run of what `make chaos` does at length."""

from functools import partial
from pathlib import Path

import pytest

from tests.chaos.record import Record
from tests.chaos.run import Plan, run

pytestmark = pytest.mark.faults

PLAN = partial(Plan, seed=10, seconds=10, workers=4, adapters=100, every_seconds=2)
"""An emptied Redis, a killed API and a prefix that is away are among the first faults of this seed."""


async def test_every_invariant_holds_through_a_few_faults(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    try:
        faults = await run(
            Plan(tmp_path, seed=1, seconds=10, workers=4, adapters=100, every_seconds=2), record
        )
    finally:
        record.close()
    assert faults == [], f"the record is {record.path}"
    seen = {entry["what"] for entry in record.entries}
    assert {"answered", "removed", "loaded", "stale", "answer", "refreshed", "holds", "weighs"} <= seen
    struck = {entry["name"] for entry in record.entries if entry["what"] == "fault"}
    assert {"redis_emptied", "api_killed", "prefix_gone"} <= struck
