"""What is known of a prefix, and what a committed plan changes about it."""

from datetime import timedelta

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.watcher.state.planning import plan, served
from tests.catalog.values import an_adapter
from tests.watcher.state.planned import BROKEN, NAMES, NOON, ONE, TWO, Catalog, incomplete, ready, settling


def test_what_is_found_is_planned_until_a_plan_is_committed() -> None:
    catalog = Catalog()
    catalog.find("sql")
    assert catalog.plan().records.keys() == {"sql"}
    assert catalog.plan() == catalog.plan()
    catalog.publish()
    assert catalog.plan().records == {}
    assert not catalog.state.dirty


def test_a_plan_that_could_not_be_written_loses_nothing() -> None:
    catalog = Catalog("old", grace_seconds=0.0)
    catalog.find("sql")
    catalog.miss("old", at=1.0)
    catalog.miss("old", at=2.0)
    lost = catalog.plan()
    assert (set(lost.records), set(lost.removals)) == ({"sql"}, {"old"})
    again = catalog.publish()
    assert (again.records, again.removals) == (lost.records, lost.removals)
    assert catalog.records.keys() == {"sql"}


def test_what_is_learnt_while_a_plan_is_written_stays_dirty() -> None:
    catalog = Catalog()
    catalog.find("sql")
    planned = catalog.plan()
    catalog.find("sql", finding=ready(TWO))
    catalog.state.commit(planned)
    assert catalog.plan().records["sql"].revision == TWO


def test_a_hint_or_a_word_of_nothing_is_forgotten_at_once() -> None:
    catalog = Catalog()
    catalog.state.observe_hint("nothing", now=1.0, arrived=False)
    catalog.miss("nothing", "unheard-of")
    assert not catalog.state.names
    assert not catalog.state.dirty


@pytest.mark.parametrize(
    ("recorded", "on_disk"), [("caf\\xe9", "caf\udce9"), ("a\\nb", "a\nb"), ("a\\x1b[2Jb", "a\x1b[2Jb")]
)
def test_a_name_redis_spells_with_escapes_is_not_missing(recorded: str, on_disk: str) -> None:
    catalog = Catalog(recorded)
    catalog.state.observe_scan({on_disk})
    assert not catalog.state.lost


def test_a_name_that_vanishes_while_its_first_record_is_written_is_removed_as_any_other() -> None:
    catalog = Catalog()
    catalog.find("loop", finding=BROKEN)
    planned = catalog.plan()
    catalog.records |= planned.records
    catalog.miss("loop", at=1.0)
    catalog.state.commit(planned)
    catalog.miss("loop", at=1.5)
    assert catalog.publish().look_again == {"loop": 2.0}
    catalog.miss("loop", at=2.0)
    assert catalog.publish().removals.keys() == {"loop"}
    assert not catalog.state.names


def test_a_name_that_vanishes_before_it_is_written_is_forgotten() -> None:
    catalog = Catalog()
    catalog.find("loop", finding=BROKEN)
    catalog.miss("loop", at=1.0)
    assert catalog.publish().records == {}
    catalog.miss("loop", at=2.0)
    assert not catalog.state.names


def test_an_unreadable_name_keeps_its_finding_and_is_tried_again_after_growing_pauses() -> None:
    catalog = Catalog()
    catalog.find("sql")
    catalog.publish()
    pauses = [catalog.state.learn("sql", BROKEN, now=100.0) for _ in range(7)]
    assert pauses == [101.0, 102.0, 104.0, 108.0, 116.0, 130.0, 130.0]
    record = catalog.publish().records["sql"]
    assert (record.state, record.revision) == (AdapterState.UNKNOWN, ONE)
    catalog.find("sql")
    assert catalog.state.learn("sql", BROKEN, now=100.0) == 101.0


def test_of_many_hints_the_first_counts_and_the_last_says_whether_it_arrived() -> None:
    catalog = Catalog()
    catalog.state.observe_hint("sql", now=1.0, arrived=False)
    catalog.state.observe_hint("sql", now=2.0, arrived=True)
    assert catalog.state.take_arrived("sql")
    assert not catalog.state.take_arrived("sql")
    catalog.find("sql")
    assert catalog.state.commit(catalog.plan()) == [1.0]


def test_a_hint_that_led_to_nothing_does_not_count_for_the_next_publication() -> None:
    catalog = Catalog()
    found = ready()
    catalog.find("sql", finding=found)
    catalog.publish()
    catalog.state.observe_hint("sql", now=1.0, arrived=False)
    catalog.find("sql", finding=found)
    catalog.find("sql", finding=ready(TWO))
    assert catalog.state.commit(catalog.plan()) == []


def test_only_what_can_be_a_name_is_examined_because_a_client_names_it() -> None:
    catalog = Catalog("recorded with spaces")
    strange = ["../outside", "..", "", "a/b", "sql.tmp", ".hidden", "unheard-of", "x" * 5000]
    listed = {"sql", "sql.tmp", ".hidden"}
    assert catalog.state.examinable([*strange, "sql", "recorded with spaces"], listed) == {
        "sql",
        "recorded with spaces",
    }


def test_a_settling_name_is_open_and_one_that_never_rests_is_not() -> None:
    catalog = Catalog()
    catalog.find("sql", finding=settling())
    catalog.find("busy", finding=settling("unstable"))
    assert catalog.state.is_open("busy")  # it is dirty
    catalog.publish()
    assert (catalog.state.is_open("sql"), catalog.state.is_open("busy")) == (True, False)
    assert not catalog.state.is_open("unheard-of")


def test_growing_numbers_in_the_reason_of_an_incomplete_adapter_are_published_every_five_seconds() -> None:
    catalog = Catalog()
    catalog.find("sql", finding=incomplete("1 of 9"))
    catalog.publish()
    catalog.find("sql", finding=incomplete("2 of 9"))
    assert catalog.plan().records == {}
    catalog.now += timedelta(seconds=5)
    assert catalog.plan().records.keys() == {"sql"}


def test_of_two_names_that_differ_in_case_the_served_one_stays_until_it_goes() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.find("sql")
    catalog.publish()
    catalog.find("SQL")
    catalog.publish()
    assert {name: record.state for name, record in catalog.records.items()} == {
        "sql": AdapterState.READY,
        "SQL": AdapterState.REJECTED,
    }
    catalog.miss("sql", at=1.0)
    catalog.miss("sql", at=2.0)
    catalog.publish()
    catalog.publish()
    assert {name: record.state for name, record in catalog.records.items()} == {"SQL": AdapterState.READY}


def test_a_copy_is_independent_and_lacks_nothing() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.find("sql", "SQL")
    catalog.state.learn("broken", BROKEN, now=1.0)
    catalog.miss(*NAMES * 2)
    catalog.publish()
    copied = catalog.state.copy()
    assert plan(copied, catalog.records, catalog.records, now=NOON) == catalog.plan()
    assert copied.learn("broken", BROKEN, now=1.0) == 3.0
    copied.learn("sql", ready(TWO), now=1.0)
    copied.learn(NAMES[0], ready(), now=1.0)
    assert copied.colliding("sql") == ("SQL",)
    assert catalog.state.learn("broken", BROKEN, now=1.0) == 3.0
    assert catalog.state.finding("sql") == ready()
    assert (set(catalog.state.lost), catalog.state.held) == (set(NAMES), set(NAMES))


def test_served_are_the_records_with_a_revision() -> None:
    assert served({"a": an_adapter("a"), "b": an_adapter("b", revision=None)}) == {
        "a": an_adapter("a").revision
    }
