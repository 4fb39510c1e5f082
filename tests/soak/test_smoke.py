"""A short run of what `make soak` does at length, without vLLM."""

from pathlib import Path

import pytest

from tests.soak.judge import LEAST_SAMPLES
from tests.soak.run import Plan, soak

pytestmark = pytest.mark.faults


def test_updates_and_refreshes_are_answered_and_weighed(tmp_path: Path) -> None:
    plan = Plan(
        updates=10 * LEAST_SAMPLES,
        refreshes=LEAST_SAMPLES,
        warm_up_updates=0,
        warm_up_refreshes=0,
        with_worker=False,
    )
    outcomes = list(soak(plan, tmp_path))
    assert [(outcome.name, outcome.events) for outcome in outcomes] == [
        ("updates", 10 * LEAST_SAMPLES),
        ("refreshes", LEAST_SAMPLES),
    ]
    weighed = {growth.quantity.who for outcome in outcomes for growth in outcome.growths}
    assert weighed == {"watcher", "api", "redis"}
    grown = {growth.quantity.what for growth in outcomes[0].growths if not growth.is_tolerated}
    assert "events" in grown  # there was no warm-up: the judge sees the stream fill
