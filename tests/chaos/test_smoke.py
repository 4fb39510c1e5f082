"""A short run of what `make chaos` does at length."""

from functools import partial
from pathlib import Path

import pytest

from tests.chaos.record import Record
from tests.chaos.run import Plan, run

pytestmark = pytest.mark.faults

_FAULTS = ("redis_emptied", "records_lost", "prefix_gone")
PLAN = partial(Plan, seed=16, seconds=6, workers=4, adapters=100, every_seconds=2, only=_FAULTS)
"""Redis is emptied, then its records are lost; what follows depends on the time there is."""


async def test_every_invariant_holds_through_a_few_faults(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    try:
        faults = await run(PLAN(tmp_path), record)
    finally:
        record.close()
    assert faults == [], f"the record is {record.path}"
    seen = {entry["what"] for entry in record.entries}
    assert {"answered", "removed", "loaded", "stale", "answer", "refreshed", "holds", "weighs"} <= seen
    assert next(entry["name"] for entry in record.entries if entry["what"] == "fault") == "redis_emptied"
