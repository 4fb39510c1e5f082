"""Any schedule of updates, rollbacks, removals and requests: each request gets the weights it is owed."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.virtual_time import run_in_virtual_time
from tests.worker.world import NAMES, PAUSES, REVISIONS, Step, lived_through

steps = st.builds(
    Step,
    pause=st.sampled_from(PAUSES),
    name=st.sampled_from(NAMES),
    asks=st.booleans(),
    wanted=st.sampled_from((*REVISIONS, None)),
    tokenises=st.sampled_from(PAUSES[:6]),
    streams=st.sampled_from(PAUSES),
)
deletions = steps | st.builds(
    Step,
    pause=st.sampled_from(PAUSES),
    name=st.just("sql"),
    asks=st.just(False),
    wanted=st.none(),
    tokenises=st.just(0.0),
    streams=st.just(0.0),
    deletes=st.just(True),
)
updates_only = steps.filter(lambda step: step.asks or step.wanted is not None)


@pytest.fixture(autouse=True)
def _runtime_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0")  # what a table sets, undone afterwards


def check(schedule: Sequence[Step], seed: int, *, fails: float = 0.0) -> None:
    async def live() -> None:
        assert (await lived_through(schedule, seed, fails=fails)).broken == []

    run_in_virtual_time(live())


@settings(deadline=None)
@given(schedule=st.lists(steps, min_size=5, max_size=60), seed=st.integers(0, 1 << 30))
def test_each_request_gets_the_weights_it_is_owed(schedule: list[Step], seed: int) -> None:
    check(schedule, seed)


@settings(deadline=None)
@given(schedule=st.lists(updates_only, min_size=5, max_size=60), seed=st.integers(0, 1 << 30))
def test_updates_and_rollbacks_refuse_no_request(schedule: list[Step], seed: int) -> None:
    check(schedule, seed)


@settings(deadline=None)
@given(schedule=st.lists(steps, min_size=5, max_size=60), seed=st.integers(0, 1 << 30))
def test_nor_do_copies_and_loads_that_fail_change_what_it_gets(schedule: list[Step], seed: int) -> None:
    check(schedule, seed, fails=0.2)


@settings(deadline=None)
@given(schedule=st.lists(deletions, min_size=5, max_size=60), seed=st.integers(0, 1 << 30))
def test_nor_does_a_private_store_that_is_deleted_while_it_is_used(schedule: list[Step], seed: int) -> None:
    check(schedule, seed, fails=0.01)
