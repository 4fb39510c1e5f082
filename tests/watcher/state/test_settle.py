"""When an adapter has stopped changing."""

from hypothesis import given
from hypothesis import strategies as st

from loradrop.watcher.prefix.findings import Stillness
from loradrop.watcher.state.settle import SettleRule, is_unstable, observe, remaining_seconds

RULE = SettleRule(settle_seconds=1.0, unstable_after_seconds=60.0)


def remaining(stillness: Stillness, now: float, age: float = -1.0, *, arrived: bool = False) -> float:
    return remaining_seconds(stillness, RULE, now=now, age_seconds=age, arrived=arrived)


def test_a_fresh_adapter_waits_for_the_settle_time() -> None:
    assert remaining(observe(None, b"a", now=10), 10) == 1.0


def test_an_adapter_seen_unchanged_for_the_settle_time_has_settled() -> None:
    stillness = observe(observe(None, b"a", now=10), b"a", now=10.6)
    assert remaining(stillness, 11.0) == 0.0


def test_a_change_starts_the_wait_again() -> None:
    stillness = observe(observe(None, b"a", now=10), b"b", now=10.9)
    assert remaining(stillness, 11.0) > 0.8


def test_files_that_are_old_by_their_own_times_need_not_wait() -> None:
    assert remaining(observe(None, b"a", now=10), 10, age=5.0) == 0.0


def test_a_directory_that_arrived_by_a_rename_need_not_wait() -> None:
    assert remaining(observe(None, b"a", now=10), 10, arrived=True) == 0.0


def test_files_from_the_future_wait_for_our_own_clock() -> None:
    stillness = observe(None, b"a", now=10)
    assert remaining(stillness, 10, age=-3600) == 1.0
    assert remaining(stillness, 11, age=-3600) == 0.0


def test_an_adapter_that_never_rests_becomes_unstable() -> None:
    stillness = observe(None, b"0", now=0)
    for second in range(1, 70):
        stillness = observe(stillness, str(second).encode(), now=second)
    assert is_unstable(stillness, RULE, now=69)
    assert not is_unstable(stillness, RULE, now=60)


looks = st.lists(
    st.tuples(st.floats(min_value=0.01, max_value=3.0), st.sampled_from([b"a", b"b", b"c"])),
    min_size=1,
    max_size=30,
)


@given(looks)
def test_nothing_settles_before_it_was_seen_unchanged_for_the_settle_time(
    history: list[tuple[float, bytes]],
) -> None:
    now, stillness, last_change, last = 0.0, None, 0.0, None
    for pause, signature in history:
        now += pause
        stillness = observe(stillness, signature, now=now)
        if signature != last:
            last, last_change = signature, now
        settled = remaining_seconds(stillness, RULE, now=now, age_seconds=-1, arrived=False) == 0.0
        assert settled == (now - last_change >= RULE.settle_seconds)


@given(looks)
def test_what_remains_is_exactly_how_long_to_wait(history: list[tuple[float, bytes]]) -> None:
    now, stillness = 0.0, None
    for pause, signature in history:
        now += pause
        stillness = observe(stillness, signature, now=now)
    assert stillness is not None
    left = remaining_seconds(stillness, RULE, now=now, age_seconds=-1, arrived=False)
    assert remaining_seconds(stillness, RULE, now=now + left + 1e-6, age_seconds=-1, arrived=False) == 0.0
