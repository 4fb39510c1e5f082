"""Facts as they come in: what each one changes, and what it leaves as it was."""

from loradrop.catalog.adapter import AdapterState
from tests.watcher.state.planned import (
    BROKEN,
    HOME,
    NAMES,
    ONE,
    OTHER,
    TWO,
    Catalog,
    incomplete,
    ready,
    settling,
)

# What is known of a name.


def test_what_was_found_last_is_what_the_next_scan_compares_with() -> None:
    catalog = Catalog("recorded")
    catalog.find("sql", finding=ready(ONE))
    catalog.find("sql", finding=ready(TWO))
    assert catalog.state.names["sql"].signature == ready(TWO).signature
    assert catalog.state.names["recorded"].signature is None


def test_only_a_name_that_settles_and_may_come_to_rest_is_unsettled() -> None:
    catalog = Catalog()
    catalog.find("settling", finding=settling())
    catalog.find("unstable", finding=settling("unstable"))
    catalog.find("ready")
    unsettled = {name: catalog.state.is_unsettled(name) for name in (*catalog.state.names, "unheard-of")}
    assert unsettled == {"settling": True, "unstable": False, "ready": False, "unheard-of": False}


def test_what_is_unreadable_or_not_found_is_examined_at_every_scan() -> None:
    catalog = Catalog("missing", "absent")
    catalog.find("broken", finding=BROKEN)
    catalog.find("ready", "absent")
    catalog.miss("absent")
    catalog.state.observe_listing({"broken", "ready", "absent"})
    assert sorted(catalog.state.doubtful()) == ["absent", "broken", "missing"]


def test_what_was_unreadable_missing_or_absent_and_is_found_is_not_in_doubt() -> None:
    catalog = Catalog("sql")
    catalog.find("sql", finding=BROKEN)
    catalog.find("sql")
    assert catalog.state.doubtful() == []
    catalog.state.observe_listing(set())
    catalog.find("sql")
    assert catalog.state.doubtful() == []
    catalog.miss("sql")
    catalog.find("sql")
    assert catalog.state.doubtful() == []


def test_what_was_unreadable_and_is_absent_is_tried_again_after_the_shortest_pause() -> None:
    catalog = Catalog("sql")
    catalog.find("sql", *["sql"] * 3, finding=BROKEN)
    catalog.miss("sql", at=1.0)
    assert catalog.state.learn("sql", BROKEN, now=100.0) == 101.0


def test_what_was_unreadable_and_is_absent_in_another_directory_is_not_unknown_because_of_it() -> None:
    catalog = Catalog()
    catalog.find("sql")
    catalog.publish()
    catalog.find("sql", finding=BROKEN)
    assert catalog.publish().records["sql"].state is AdapterState.UNKNOWN
    catalog.state.observe_root(OTHER)
    catalog.miss("sql")
    assert catalog.publish().records["sql"].state is AdapterState.READY


# Hints.


def test_whether_a_name_arrived_is_asked_once_and_can_be_put_back() -> None:
    catalog = Catalog()
    catalog.state.observe_hint("sql", now=1.0, arrived=True)
    assert catalog.state.take_arrived("sql")
    catalog.state.put_back_arrived("sql")
    assert catalog.state.take_arrived("sql")
    catalog.state.observe_hint("sql", now=2.0, arrived=True)
    catalog.state.observe_hint("sql", now=3.0, arrived=False)
    assert not catalog.state.take_arrived("sql")


def test_a_name_nothing_is_known_of_has_not_arrived_and_is_not_remembered_for_the_question() -> None:
    catalog = Catalog()
    assert not catalog.state.take_arrived("unheard-of")
    catalog.state.put_back_arrived("unheard-of")
    assert not catalog.state.names


# Which directory the prefix is.


def test_only_another_directory_than_last_time_is_noticed_as_another() -> None:
    catalog = Catalog()
    assert not catalog.state.observe_root(HOME)
    assert catalog.state.observe_root(OTHER)
    assert not catalog.state.observe_root(OTHER)
    assert catalog.state.observe_root(HOME)


def test_in_a_directory_that_is_in_doubt_nothing_counts_as_gone_until_it_is_listed() -> None:
    catalog = Catalog("sql", grace_seconds=0.0)
    catalog.state.doubt_root()
    catalog.miss("sql", "sql")
    assert not catalog.publish().removals
    catalog.find("new")
    catalog.state.observe_listing({"new"})
    catalog.publish()
    catalog.miss("sql", "sql")
    assert set(catalog.publish().removals) == {"sql"}


def test_a_new_session_begins_with_nothing_to_publish() -> None:
    catalog = Catalog()
    catalog.find("sql")
    catalog.state.begin_session([])
    assert not catalog.state.dirty
    catalog.miss("sql")
    assert catalog.state.has_finding("sql"), "one absence proves nothing"
    catalog.find("sql")
    assert set(catalog.publish().records) == {"sql"}


# What a scan saw and nobody has examined may be served.


def test_a_hinted_name_that_a_scan_saw_too_may_be_served() -> None:
    catalog = Catalog(grace_seconds=0.0)
    for name in NAMES:
        catalog.state.observe_hint(name, now=1.0, arrived=False)
    catalog.state.observe_scan(set(NAMES))
    catalog.miss(*NAMES * 2)
    assert catalog.publish().held == set(NAMES)


def test_an_unreadable_name_that_a_scan_sees_again_is_not_counted_as_served() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.find(*NAMES, finding=BROKEN)
    catalog.publish()
    catalog.state.observe_scan(set(NAMES))
    catalog.miss(*NAMES * 2)
    assert set(catalog.publish().removals) == set(NAMES)


def test_a_name_that_was_seen_and_found_unreadable_is_not_counted_as_served() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.state.observe_scan(set(NAMES))
    catalog.find(*NAMES, finding=BROKEN)
    catalog.publish()
    catalog.miss(*NAMES * 2)
    assert set(catalog.publish().removals) == set(NAMES)


def test_an_incomplete_name_that_a_scan_sees_again_is_not_counted_as_served() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.state.observe_scan(set(NAMES))
    catalog.find(*NAMES, finding=incomplete("1 of 9"))
    catalog.publish()
    catalog.state.observe_scan(set(NAMES))
    catalog.miss(*NAMES * 2)
    assert set(catalog.publish().removals) == set(NAMES)


# What is held back.


def test_what_was_there_all_along_does_not_make_those_late_that_are_held_back() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.miss(*NAMES[:6], at=1.0)
    catalog.publish()
    catalog.find(NAMES[9], at=20.0)
    assert catalog.state.held == set(NAMES[:6])
    catalog.miss(*NAMES[:6], at=31.5)
    assert set(catalog.publish().removals) == set(NAMES[:6])


def test_what_comes_back_where_nothing_is_held_back_does_not_make_others_late() -> None:
    catalog = Catalog(*NAMES, grace_seconds=10.0)
    catalog.miss(*NAMES[:2], at=1.0)
    assert not catalog.publish().held
    catalog.find(NAMES[0], at=10.0)
    catalog.miss(NAMES[1], at=11.5)
    assert set(catalog.publish().removals) == {NAMES[1]}


def test_a_name_that_is_listed_again_is_lost_no_more_though_others_are() -> None:
    catalog = Catalog("one", "two")
    catalog.state.observe_listing(set())
    assert set(catalog.state.lost) == {"one", "two"}
    catalog.state.observe_listing({"one"})
    assert set(catalog.state.lost) == {"two"}
