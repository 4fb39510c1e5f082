"""What is planned, decision by decision: each half of a condition makes a difference."""

from dataclasses import replace
from datetime import timedelta

from loradrop.catalog.adapter import AdapterState
from loradrop.watcher.state.planning import wanted_record
from tests.watcher.state.planned import HOME, NAMES, NOON, ONE, OTHER, TWO, Catalog, incomplete, ready


def came_back(catalog: Catalog, *names: str) -> None:
    """Another directory was at the prefix; the expected one is back, and holds `names`."""
    catalog.state.observe_root(OTHER)
    catalog.state.observe_root(HOME)
    catalog.state.observe_listing(set(names))


# Which directory is accepted.


def test_the_expected_directory_is_accepted_for_any_adapter_it_holds() -> None:
    catalog = Catalog(*NAMES)
    catalog.find(*NAMES)
    catalog.publish()
    came_back(catalog)
    assert catalog.plan().accepts_root is False, "what was found in it before is no longer there"
    came_back(catalog, NAMES[0])
    assert catalog.plan().accepts_root is True


def test_what_a_scan_saw_in_the_expected_directory_and_nobody_examined_counts() -> None:
    catalog = Catalog(*NAMES)
    came_back(catalog)
    catalog.state.observe_scan({"new"})
    assert catalog.plan().accepts_root is True


def test_a_mere_hint_is_no_adapter_in_the_expected_directory() -> None:
    catalog = Catalog(*NAMES)
    came_back(catalog, "hinted")
    catalog.state.observe_hint("hinted", now=0.0, arrived=False)
    assert catalog.plan().accepts_root is False


def test_an_empty_directory_is_accepted_where_nothing_is_served() -> None:
    catalog = Catalog()
    came_back(catalog)
    assert catalog.plan().accepts_root is True


def test_a_refused_directory_is_accepted_once_it_holds_all_that_is_served() -> None:
    catalog = Catalog(*NAMES)
    catalog.state.observe_root(OTHER)
    catalog.state.observe_listing(set())
    assert catalog.publish().accepts_root is False
    catalog.state.observe_listing(set(NAMES[:9]))
    assert catalog.publish().accepts_root is False
    catalog.state.observe_listing(set(NAMES))
    assert catalog.publish().accepts_root is True


def test_another_directory_is_accepted_where_half_of_what_is_served_is_in_it() -> None:
    for present, accepts in ((4, False), (5, True)):
        catalog = Catalog(*NAMES)
        catalog.state.observe_root(OTHER)
        catalog.state.observe_listing(set(NAMES[:present]))
        assert catalog.plan().accepts_root is accepts


def test_an_operator_who_confirms_has_another_directory_accepted_and_what_it_lacks_removed() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.state.observe_root(OTHER)
    catalog.state.observe_listing(set())
    catalog.publish()
    catalog.miss(*NAMES * 2)
    assert not catalog.plan().removals
    assert catalog.publish(confirmed=True).accepts_root is True
    catalog.miss(*NAMES * 2)
    assert set(catalog.plan(confirmed=True).removals) == set(NAMES)


# What is held back.


def test_adapters_that_were_not_examined_yet_count_among_those_that_may_be_served() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.miss(*NAMES[:6] * 2)
    assert catalog.plan().held == set(NAMES[:6])
    catalog.state.observe_scan({*NAMES[6:], *(f"new{number}" for number in range(5))})
    assert not catalog.plan().held, "six of fifteen"


def test_adapters_that_are_known_not_to_be_served_do_not_count() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.find(*(f"new{number}" for number in range(5)), finding=incomplete("1 of 9"))
    catalog.miss(*NAMES[:6] * 2)
    assert catalog.plan().held == set(NAMES[:6])


def test_adapters_that_are_recorded_count_once_though_they_were_not_examined_yet() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.state.observe_scan(set(NAMES))
    catalog.miss(*NAMES[:6] * 2)
    assert catalog.plan().held == set(NAMES[:6])


def test_a_name_is_open_while_it_may_be_removed() -> None:
    catalog = Catalog(*NAMES)
    catalog.find(*NAMES)
    catalog.publish()
    assert not catalog.state.is_open("a0")
    catalog.miss("a0")
    catalog.publish()
    assert catalog.state.is_open("a0")
    catalog.state.observe_root(OTHER)
    catalog.publish()
    assert not catalog.state.is_open("a0"), "nothing is gone in another directory"


# Which record is wanted.


def test_what_is_absent_keeps_its_record_though_something_newer_was_found_before() -> None:
    catalog = Catalog("sql")
    catalog.find("sql")
    catalog.publish()
    catalog.find("sql", finding=ready(TWO))
    catalog.miss("sql", at=1.0)
    assert not catalog.plan().records
    assert catalog.records["sql"].revision == ONE


def test_what_was_not_examined_keeps_its_record() -> None:
    catalog = Catalog("sql")
    catalog.state.observe_scan({"sql"})
    assert wanted_record(catalog.state, "sql", catalog.records, now=NOON) is catalog.records["sql"]
    assert wanted_record(catalog.state, "unknown", catalog.records, now=NOON) is None


def test_other_numbers_of_the_same_reason_are_published_every_few_seconds_only() -> None:
    catalog = Catalog()
    catalog.find("sql", finding=incomplete("1 of 9"))
    assert set(catalog.publish().records) == {"sql"}, "a new reason is published at once"
    catalog.find("sql", finding=incomplete("2 of 9"))
    assert not catalog.publish().records
    catalog.now += timedelta(seconds=5)
    catalog.find("sql", finding=incomplete("3 of 9"))
    assert set(catalog.publish().records) == {"sql"}


def test_another_reason_and_another_state_are_published_at_once() -> None:
    catalog = Catalog()
    catalog.find("sql", finding=incomplete("1 of 9"))
    catalog.publish()
    other = incomplete("1 of 9")
    assert other.reason is not None
    catalog.find("sql", finding=replace(other, reason=replace(other.reason, code="config_missing")))
    assert catalog.publish().records["sql"].reason is not None
    catalog.find("sql", finding=ready())
    assert catalog.publish().records["sql"].state is AdapterState.READY
    catalog.find("sql", finding=ready(TWO))
    assert catalog.publish().records["sql"].revision == TWO


def test_of_two_names_that_collide_the_one_that_was_served_first_is_served() -> None:
    catalog = Catalog()
    catalog.find("sql")
    catalog.publish()
    catalog.find("SQL")
    records = catalog.publish().records
    assert {name: record.state for name, record in records.items()} == {"SQL": AdapterState.REJECTED}
    assert catalog.records["sql"].state is AdapterState.READY


def test_of_two_names_that_collide_and_were_never_served_none_is() -> None:
    catalog = Catalog()
    catalog.find("sql", "SQL")
    assert {record.state for record in catalog.publish().records.values()} == {AdapterState.REJECTED}
