"""What all copies together may read of the prefix."""

from threading import Event

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.rate_limit import RateLimit


def test_without_a_bound_no_reader_pauses() -> None:
    limit = RateLimit(0.0)
    assert limit.pause_after(10**12, now=5.0) == 0.0
    assert limit.seconds_for(10**12, readers=4) == 0.0


def test_readers_pause_for_what_all_of_them_have_read() -> None:
    limit = RateLimit(100.0)
    assert limit.pause_after(50, now=1000.0) == 0.5
    assert limit.pause_after(100, now=1000.0) == 1.5
    assert limit.pause_after(100, now=1001.0) == 1.5


def test_what_was_not_read_earlier_is_not_made_up_for() -> None:
    limit = RateLimit(100.0)
    limit.pause_after(100, now=0.0)
    assert limit.pause_after(100, now=3600.0) == 1.0


def test_the_time_a_copy_needs_is_that_of_its_share() -> None:
    assert RateLimit(100.0).seconds_for(1000, readers=4) == 40.0


def test_a_copy_that_was_given_up_ends_instead_of_pausing() -> None:
    given_up = Event()
    permit = RateLimit(1e-9).permit(given_up)
    given_up.set()
    with pytest.raises(Failed, match="copy_timed_out"):
        permit(1)
