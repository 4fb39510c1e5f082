"""Which names to examine, in which order, and when."""

from hypothesis import given
from hypothesis import strategies as st

from loradrop.watcher.monitor.work_queue import WorkQueue


def test_hinted_names_come_first() -> None:
    queue = WorkQueue()
    queue.add_low_priority(["found"])
    queue.add("hinted")
    assert queue.get(10) == ["hinted", "found"]


def test_many_hints_for_one_name_are_one_examination() -> None:
    queue = WorkQueue()
    for _ in range(1000):
        queue.add("sql")
    assert queue.get(10) == ["sql"]
    assert queue.get(10) == []


def test_a_name_that_was_found_and_is_hinted_then_is_handed_out_once() -> None:
    queue = WorkQueue()
    queue.add_low_priority(["math", "sql"])
    queue.add("sql")
    queue.add_low_priority(["sql"])
    assert len(queue) == 2
    assert queue.get(10) == ["sql", "math"]


def test_a_name_in_flight_keeps_its_newer_hint_for_afterwards() -> None:
    queue = WorkQueue()
    queue.add("sql")
    queue.get(1)
    queue.add("sql")
    assert queue.get(1) == []
    assert queue.is_active("sql")
    queue.done("sql")
    assert queue.get(1) == ["sql"]


def test_only_hinted_names_can_be_asked_for() -> None:
    queue = WorkQueue()
    queue.add_low_priority(["found"])
    assert queue.get(10, only_high=True) == []
    queue.add("hinted")
    assert queue.get(10, only_high=True) == ["hinted"]


def test_a_name_is_ready_at_the_last_time_that_was_set_for_it_and_only_once() -> None:
    queue = WorkQueue()
    queue.add_after("sql", 5.0)
    queue.add_after("sql", 7.0)
    queue.add_after("math", 6.0)
    queue.add_after("gone", 1.0)
    queue.add_after("gone", None)
    assert queue.next_due() == 6.0
    assert queue.is_only_due("sql")
    assert queue.all() == {"sql", "math"}
    queue.advance(6.5)
    assert queue.get(10) == ["math"]
    queue.advance(7.0)
    assert not queue.is_only_due("sql")
    assert queue.get(10) == ["sql"]
    assert queue.next_due() is None


def test_no_more_names_are_handed_out_than_were_asked_for() -> None:
    queue = WorkQueue()
    queue.add_low_priority(["low-1", "low-2"])
    for name in ("high-1", "high-2", "high-3"):
        queue.add(name)
    assert queue.get(2) == ["high-1", "high-2"]
    assert queue.get(2) == ["high-3", "low-1"]
    assert queue.get(0) == []
    assert queue.get(2) == ["low-2"]
    assert len(queue) == 0


def test_a_name_is_active_while_it_is_ready_or_in_flight_and_hinted_only_while_it_is_ready() -> None:
    queue = WorkQueue()
    queue.add("hinted")
    queue.add_low_priority(["found"])
    queue.add_after("due", 5.0)
    names = ("hinted", "found", "due", "unheard-of")
    assert [queue.is_active(name) for name in names] == [True, True, False, False]
    assert [queue.is_hinted(name) for name in names] == [True, False, False, False]
    assert [queue.is_only_due(name) for name in names] == [False, False, True, False]
    queue.get(10)
    assert [queue.is_active(name) for name in names] == [True, True, False, False]
    assert not queue.is_hinted("hinted")
    queue.add_after("found", 6.0)
    assert not queue.is_only_due("found")
    for name in names:
        queue.done(name)
    assert not any(queue.is_active(name) for name in names)
    assert queue.is_only_due("found")


def test_nothing_is_left_of_a_time_once_it_has_come() -> None:
    queue = WorkQueue()
    queue.add_after("sql", 5.0)
    queue.advance(4.9)
    assert (queue.get(10), queue.is_only_due("sql")) == ([], True)
    queue.advance(5.0)
    assert queue.get(10) == ["sql"]
    queue.done("sql")
    assert (queue.is_only_due("sql"), queue.all()) == (False, set())
    queue.add_after("sql", 5.0)
    assert queue.next_due() == 5.0


def test_too_many_hints_ask_for_a_scan_instead() -> None:
    queue = WorkQueue()
    accepted = sum(queue.add(str(number)) for number in range(20_000))
    assert accepted == 10_000
    assert queue.add("0")
    assert len(queue) == 10_000


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["add", "add_low_priority", "done"]), st.sampled_from("abc")),
            st.tuples(st.just("get"), st.integers(1, 3)),
        ),
        max_size=50,
    )
)
def test_no_hint_is_lost_and_no_name_is_handed_out_twice(steps: list[tuple[str, str | int]]) -> None:
    queue, in_flight, ready = WorkQueue(), set[str](), set[str]()
    for step, value in steps:
        if step == "get":
            for name in queue.get(int(value)):
                assert name not in in_flight
                in_flight.add(name)
                ready.discard(name)
        elif step == "done":
            queue.done(str(value))
            in_flight.discard(str(value))
        else:
            queue.add(str(value)) if step == "add" else queue.add_low_priority([str(value)])
            ready.add(str(value))
    assert queue.all() == in_flight | ready
    for name in in_flight:
        queue.done(name)
    assert set(queue.get(10)) == ready
