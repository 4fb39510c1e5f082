import pytest

from loradrop.catalog.backoff import HALF_JITTER, Backoff


def test_pauses_double_up_to_the_last() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.pause_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_success_begins_again_at_the_first_pause() -> None:
    backoff = Backoff(1.0, 8.0)
    backoff.pause_seconds()
    backoff.pause_seconds()
    backoff.reset()
    assert backoff.pause_seconds() == 1.0


@pytest.mark.parametrize(("lasted_seconds", "pause"), [(9.9, 2.0), (10.0, 1.0)])
def test_only_a_try_that_held_long_enough_counts_as_a_success(lasted_seconds: float, pause: float) -> None:
    backoff = Backoff(1.0, 8.0, healthy_seconds=10.0)
    backoff.pause_seconds()
    assert backoff.pause_seconds(lasted_seconds=lasted_seconds) == pause


def test_jitter_stays_within_its_bounds_and_does_not_accumulate() -> None:
    backoff = Backoff(1.0, 1.0, jitter=HALF_JITTER)
    pauses = {backoff.pause_seconds() for _ in range(200)}
    assert all(0.5 <= pause <= 1.0 for pause in pauses)
    assert len(pauses) > 100
