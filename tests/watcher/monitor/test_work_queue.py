"""Which names to look at, in which order, and when."""

from hypothesis import given
from hypothesis import strategies as st

from loradrop.watcher.monitor.work_queue import Agenda


def test_hinted_names_come_first() -> None:
    agenda = Agenda()
    agenda.find(["found"])
    agenda.hint("hinted", arrived=True)
    assert agenda.take(10) == [("hinted", True), ("found", False)]


def test_many_hints_for_one_name_are_one_look() -> None:
    agenda = Agenda()
    for _ in range(1000):
        agenda.hint("sql")
    assert agenda.take(10) == [("sql", False)]
    assert agenda.take(10) == []


def test_an_arrival_is_forgotten_where_something_writes_afterwards() -> None:
    agenda = Agenda()
    agenda.hint("sql", arrived=True)
    agenda.hint("sql")
    assert agenda.take(1) == [("sql", False)]


def test_a_name_being_looked_at_keeps_its_newer_hint_for_afterwards() -> None:
    agenda = Agenda()
    agenda.hint("sql")
    agenda.take(1)
    agenda.hint("sql")
    assert agenda.take(1) == []
    assert agenda.is_waiting("sql")
    agenda.done("sql")
    assert agenda.take(1) == [("sql", False)]


def test_only_hinted_names_can_be_asked_for() -> None:
    agenda = Agenda()
    agenda.find(["found"])
    assert agenda.take(10, only_hinted=True) == []
    agenda.hint("hinted")
    assert agenda.take(10, only_hinted=True) == [("hinted", False)]


def test_a_scheduled_name_wakes_in_time_and_only_once() -> None:
    agenda = Agenda()
    agenda.schedule("sql", 5.0)
    agenda.schedule("sql", 7.0)
    agenda.schedule("math", 6.0)
    agenda.schedule("gone", 1.0)
    agenda.schedule("gone", None)
    assert agenda.next_due() == 6.0
    agenda.wake(6.5)
    assert agenda.take(10) == [("math", False)]
    agenda.wake(7.0)
    assert agenda.take(10) == [("sql", False)]
    assert agenda.next_due() is None


def test_too_many_hints_ask_for_a_scan_instead() -> None:
    agenda = Agenda()
    accepted = sum(agenda.hint(str(number)) for number in range(20_000))
    assert accepted == 10_000
    assert agenda.hint("0")
    assert agenda.count() == 10_000


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["hint", "find", "done"]), st.sampled_from("abc")),
            st.tuples(st.just("take"), st.integers(1, 3)),
        ),
        max_size=50,
    )
)
def test_no_hint_is_lost_and_no_name_is_handed_out_twice(steps: list[tuple[str, str | int]]) -> None:
    agenda, busy, dirty = Agenda(), set[str](), set[str]()
    for step, value in steps:
        if step == "take":
            for name, _ in agenda.take(int(value)):
                assert name not in busy
                busy.add(name)
                dirty.discard(name)
        elif step == "done":
            agenda.done(str(value))
            busy.discard(str(value))
        else:
            agenda.hint(str(value)) if step == "hint" else agenda.find([str(value)])
            dirty.add(str(value))
    assert agenda.waiting() == busy | dirty
    for name in busy:
        agenda.done(name)
    assert {name for name, _ in agenda.take(10)} == dirty
