"""What is planned where adapters are gone: proven removals, mass removals held back, other directories."""

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.watcher.state.planning import plan, wanted_record
from tests.catalog.values import an_adapter
from tests.watcher.state.planned import (
    BROKEN,
    GONE,
    HOME,
    NAMES,
    NOON,
    OTHER,
    TWO,
    Catalog,
    incomplete,
    ready,
)


def test_a_name_that_comes_back_while_its_removal_is_written_is_published_again() -> None:
    catalog = Catalog("sql", grace_seconds=0.0)
    catalog.find("sql")
    catalog.publish()
    catalog.miss("sql", at=1.0)
    catalog.miss("sql", at=2.0)
    planned = catalog.plan()
    assert set(planned.removals) == {"sql"}
    catalog.find("sql", finding=ready(TWO))
    catalog.state.commit(planned)
    catalog.records.clear()
    assert catalog.plan().records["sql"].revision == TWO


def test_a_removed_name_is_forgotten_altogether() -> None:
    catalog = Catalog("sql", grace_seconds=0.0)
    catalog.find("sql")
    catalog.miss("sql", at=1.0)
    catalog.miss("sql", at=2.0)
    catalog.publish()
    assert (dict(catalog.state.names), set(catalog.state.lost), dict(catalog.state.dirty)) == ({}, set(), {})


def test_a_recorded_name_is_removed_though_nothing_of_it_was_ever_found() -> None:
    catalog = Catalog("old")
    catalog.state.observe_scan(set())
    assert set(catalog.state.lost) == {"old"}
    catalog.miss("old", at=1.0)
    assert catalog.publish().look_again == {"old": 2.0}
    catalog.miss("old", at=2.0)
    assert set(catalog.publish().removals) == {"old"}


def test_most_adapters_vanishing_are_held_back_and_the_operator_can_confirm() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.miss(*NAMES[:6], at=1.0)
    catalog.miss(*NAMES[:6], at=2.0)
    held = catalog.publish()
    assert (held.removals, held.held) == ({}, set(NAMES[:6]))
    assert not catalog.state.is_open("a0")
    assert set(catalog.plan(confirmed=True).removals) == set(NAMES[:6])


def test_half_of_the_adapters_are_no_mass() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.miss(*NAMES[:5], at=1.0)
    catalog.miss(*NAMES[:5], at=2.0)
    assert len(catalog.publish().removals) == 5


def test_names_that_were_never_served_are_no_mass_and_are_not_held() -> None:
    catalog = Catalog(*NAMES[:6], grace_seconds=0.0)
    catalog.find(*NAMES[6:], finding=incomplete("1 of 9"))
    catalog.publish()
    catalog.miss(*NAMES, at=1.0)
    catalog.miss(*NAMES, at=2.0)
    planned = catalog.publish()
    assert (set(planned.removals), planned.held) == (set(NAMES[6:]), set(NAMES[:6]))


def test_a_few_that_were_examined_are_held_where_most_are_missing_from_a_listing() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.state.observe_listing({"another"})
    catalog.miss(*NAMES[:2] * 2)
    assert catalog.publish().held == set(NAMES)
    catalog.find(NAMES[9])
    assert not catalog.publish().removals, "one that vanished with them is back, and they may be late"
    catalog.state.observe_listing(set(NAMES[2:]))
    catalog.miss(*NAMES[:2] * 2)
    assert set(catalog.publish().removals) == set(NAMES[:2])


def test_what_was_seen_and_not_examined_before_it_vanished_is_held_back() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.state.observe_scan(set(NAMES))
    catalog.find(NAMES[0])
    catalog.miss(*NAMES[1:] * 2)
    assert catalog.publish().held == set(NAMES[1:])
    catalog.find(*NAMES[1:])
    assert not catalog.publish().held


def test_when_one_of_many_is_back_what_was_seen_of_the_others_proves_nothing() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.miss(*NAMES * 2)
    assert catalog.publish().held == set(NAMES)
    catalog.find(*NAMES[:6])
    assert catalog.publish().look_again.keys() == set(NAMES[6:])
    catalog.miss(*NAMES[6:] * 2)
    assert set(catalog.publish().removals) == set(NAMES[6:])


def test_what_redis_lost_is_published_again_as_it_was_until_its_removal_is_proven() -> None:
    catalog = Catalog("sql")
    lost: dict[str, Adapter] = {}
    catalog.miss("sql", at=1.0)
    planned = plan(catalog.state, lost, catalog.records, now=NOON)
    assert planned.records == {"sql": catalog.records["sql"]}
    assert wanted_record(catalog.state, "unheard-of", catalog.records, now=NOON) is None


def test_in_a_directory_that_is_not_accepted_nothing_counts_as_gone() -> None:
    catalog = Catalog("sql", grace_seconds=0.0)
    catalog.state.observe_root(OTHER)
    catalog.miss("sql", "sql", "sql")
    assert catalog.publish().accepts_root is None
    catalog.state.observe_scan({"new"})
    assert catalog.publish().accepts_root is False
    catalog.miss("sql", "sql", "sql")
    catalog.find("new")
    planned = catalog.publish()
    assert (planned.removals, set(planned.records)) == ({}, {"new"})
    assert not catalog.state.is_open("sql")


def test_what_another_directory_was_judged_by_is_not_held_against_the_one_that_came_meanwhile() -> None:
    catalog = Catalog("sql")
    catalog.state.observe_root(OTHER)
    catalog.state.observe_scan(set())
    judged = catalog.plan(confirmed=True)
    assert judged.accepts_root
    catalog.state.observe_root(HOME)
    catalog.state.commit(judged)
    assert catalog.state.root.expected == HOME
    assert not catalog.state.root.is_accepted


def test_every_served_record_counts_by_whatever_prefix_it_was_published() -> None:
    catalog = Catalog()
    catalog.records = {"foreign": an_adapter("foreign", prefix="/elsewhere")}
    catalog.state.begin_session(catalog.records, OTHER)
    catalog.state.observe_scan(set())
    assert catalog.publish().accepts_root is False


def test_the_others_are_open_again_once_one_of_those_held_back_is_there() -> None:
    catalog = Catalog(*NAMES, grace_seconds=0.0)
    catalog.miss(*NAMES[:6] * 2)
    catalog.publish()
    assert not catalog.state.is_open("a1")
    catalog.find("a0")
    assert catalog.state.is_open("a1")
    assert not catalog.state.held


def test_nothing_is_left_of_a_name_that_could_not_be_read_while_its_removal_was_written() -> None:
    catalog = Catalog("sql", grace_seconds=0.0)
    catalog.miss("sql", "sql")
    planned = catalog.plan()
    catalog.state.learn("sql", BROKEN, now=2.0)
    catalog.state.commit(planned)
    assert (dict(catalog.state.names), dict(catalog.state.dirty)) == ({}, {})


def test_a_name_that_is_missed_once_more_while_its_removal_is_written_is_still_removed() -> None:
    catalog = Catalog("sql", grace_seconds=0.0)
    catalog.miss("sql", "sql", at=1.0)
    planned = catalog.plan()
    catalog.miss("sql", at=2.0)
    catalog.records.clear()
    catalog.state.commit(planned)
    catalog.publish()
    assert not catalog.state.names


def test_names_that_a_forgotten_one_collided_with_are_published_anew() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.find("sql", "SQL")
    catalog.publish()
    catalog.miss("sql", "sql")
    catalog.publish()
    assert set(catalog.state.dirty) == {"SQL"}
    assert catalog.publish().records["SQL"].state is AdapterState.READY


def test_what_a_copy_forgets_the_state_it_was_made_of_still_knows() -> None:
    catalog = Catalog(grace_seconds=0.0)
    catalog.find("sql", "SQL")
    catalog.publish()
    copied = catalog.state.copy()
    for _ in range(2):
        copied.learn("SQL", GONE, now=1.0)
    copied.commit(plan(copied, catalog.records, catalog.records, now=NOON))
    assert (copied.colliding("sql"), "SQL" in copied.names) == ((), False)
    assert catalog.state.colliding("sql") == ("SQL",)
    assert not catalog.state.dirty
