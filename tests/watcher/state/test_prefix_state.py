"""What is known of a prefix, and what a committed plan changes about it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision, WeightsFormat
from loradrop.watcher.prefix.findings import Absent, Facts, Finding, RootIdentity, Unreadable
from loradrop.watcher.state.plan import Plan
from loradrop.watcher.state.planning import plan, served, wanted_record
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.state.removal import RemovalRule
from tests.catalog.values import an_adapter

NAMES = [f"a{number}" for number in range(10)]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOME, OTHER_DEVICE = RootIdentity(1, 10), RootIdentity(2, 10)
ONE, TWO = Revision("1" * 64), Revision("2" * 64)
GONE = Absent()
BROKEN = Unreadable(Reason("disk_error", "EIO"))


def ready(revision: Revision = ONE, **changes: Any) -> Finding:
    facts = Facts(WeightsFormat.SAFETENSORS, 1234, 8, "base")
    return Finding(
        signature=revision.encode(), state=AdapterState.READY, facts=facts, revision=revision, **changes
    )


def settling(code: str = "changing") -> Finding:
    return Finding(signature=b"s", state=AdapterState.SETTLING, reason=Reason(code, "."), look_again_at=9.0)


def incomplete(message: str) -> Finding:
    return Finding(signature=b"i", state=AdapterState.INCOMPLETE, reason=Reason("weights_truncated", message))


class Catalog:
    """A catalog that takes what is planned, as Redis does."""

    def __init__(self, *names: str, grace_seconds: float = 1.0) -> None:
        self.state = PrefixState("/srv/loras", RemovalRule(grace_seconds=grace_seconds))
        self.state.observe_root(HOME)
        self.records = {name: an_adapter(name) for name in names}
        self.state.begin_session(self.records)
        self.now = NOON

    def plan(self, **options: Any) -> Plan:
        return plan(self.state, self.records, self.records, now=self.now, **options)

    def publish(self, **options: Any) -> Plan:
        planned = self.plan(**options)
        self.records |= {record.name: record for record in planned.records.values()}
        for name in planned.removals:
            self.records.pop(name, None)
        self.state.commit(planned)
        return planned

    def find(self, *names: str, at: float = 0.0, finding: Finding | None = None) -> None:
        for name in names:
            self.state.learn(name, finding or ready(), now=at)

    def miss(self, *names: str, at: float = 0.0) -> None:
        for name in names:
            self.state.learn(name, GONE, now=at)


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


def test_a_hint_or_a_word_of_nothing_is_forgotten_at_once() -> None:
    catalog = Catalog()
    catalog.state.observe_hint("nothing", now=1.0, arrived=False)
    catalog.miss("nothing", "unheard-of")
    assert not catalog.state.names
    assert not catalog.state.dirty


def test_a_recorded_name_is_removed_though_nothing_of_it_was_ever_found() -> None:
    catalog = Catalog("old")
    catalog.state.observe_scan(set())
    assert set(catalog.state.lost) == {"old"}
    catalog.miss("old", at=1.0)
    assert catalog.publish().look_again == {"old": 2.0}
    catalog.miss("old", at=2.0)
    assert set(catalog.publish().removals) == {"old"}


def test_a_name_redis_spells_with_escapes_is_not_missing() -> None:
    catalog = Catalog("caf\\xe9")
    catalog.state.observe_scan({"caf\udce9"})
    assert not catalog.state.lost


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
    strange = ["../outside", "..", "", "a/b", "sql.tmp", ".hidden", "x" * 5000]
    assert catalog.state.examinable([*strange, "sql", "recorded with spaces"]) == {
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


def test_what_redis_lost_is_published_again_as_it_was_until_its_removal_is_proven() -> None:
    catalog = Catalog("sql")
    lost: dict[str, Adapter] = {}
    catalog.miss("sql", at=1.0)
    planned = plan(catalog.state, lost, catalog.records, now=NOON)
    assert planned.records == {"sql": catalog.records["sql"]}
    assert wanted_record(catalog.state, "unheard-of", catalog.records, now=NOON) is None


def test_served_are_the_records_with_a_revision() -> None:
    assert served({"a": an_adapter("a"), "b": an_adapter("b", revision=None)}) == {
        "a": an_adapter("a").revision
    }
