"""When an adapter is really gone."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.adapter import AdapterState
from loradrop.watcher.prefix.findings import Absent, Finding
from loradrop.watcher.state.prefix_state import Disk
from loradrop.watcher.state.removal import Absence, RemovalRule, decide_removals, miss
from tests.catalog.values import an_adapter

RULE = RemovalRule(grace_seconds=1.0, mass_share=0.5, mass_count=3, mass_grace_seconds=30.0)
NAMES = [f"a{number}" for number in range(10)]


def missed(*times: float, hurried: bool = False) -> Absence:
    absence = None
    for now in times:
        absence = miss(absence, now=now, hurried=hurried)
    assert absence is not None
    return absence


def test_one_look_proves_nothing() -> None:
    removals = decide_removals({"a0": missed(5.0)}, set(NAMES), RULE)
    assert removals.proven == ()
    assert removals.look_again == {"a0": 6.0}


def test_two_looks_within_the_grace_prove_nothing() -> None:
    assert decide_removals({"a0": missed(5.0, 5.9)}, set(NAMES), RULE).proven == ()


def test_two_looks_apart_by_the_grace_prove_it() -> None:
    assert decide_removals({"a0": missed(5.0, 6.0)}, set(NAMES), RULE).proven == ("a0",)


def test_a_person_who_waits_needs_two_looks_and_a_short_grace() -> None:
    assert decide_removals({"a0": missed(5.0, 5.2, hurried=True)}, set(NAMES), RULE).look_again == {
        "a0": 5.25
    }
    assert decide_removals({"a0": missed(5.0, 5.25, hurried=True)}, set(NAMES), RULE).proven == ("a0",)


def test_most_adapters_vanishing_at_once_are_held_back() -> None:
    absent = {name: missed(5.0, 6.5) for name in NAMES[:6]}
    removals = decide_removals(absent, set(NAMES), RULE)
    assert removals.proven == ()
    assert set(removals.held) == set(NAMES[:6])
    assert set(removals.look_again.values()) == {35.0}


def test_a_mass_removal_is_made_once_a_look_after_the_long_grace_agrees() -> None:
    absent = {name: missed(5.0, 6.5, 35.0) for name in NAMES[:6]}
    assert set(decide_removals(absent, set(NAMES), RULE).proven) == set(NAMES[:6])


def test_a_person_can_confirm_a_mass_removal() -> None:
    absent = {name: missed(5.0, 5.1) for name in NAMES}
    assert set(decide_removals(absent, set(NAMES), RULE, confirmed=True).proven) == set(NAMES)


def test_half_of_the_adapters_or_a_few_are_no_mass() -> None:
    half = {name: missed(5.0, 6.0) for name in NAMES[:5]}
    assert len(decide_removals(half, set(NAMES), RULE).proven) == 5
    few = {name: missed(5.0, 6.0) for name in NAMES[:3]}
    assert len(decide_removals(few, set(NAMES[:3]), RULE).proven) == 3


def test_names_that_were_never_served_are_no_mass_and_are_not_held() -> None:
    absent = {name: missed(5.0, 6.0) for name in NAMES}
    assert len(decide_removals(absent, set(), RULE).proven) == 10
    mixed = decide_removals(absent, set(NAMES[:6]), RULE)
    assert set(mixed.proven) == set(NAMES[6:])
    assert set(mixed.held) == set(NAMES[:6])


def test_a_few_that_were_looked_for_are_held_where_most_are_missing_from_a_listing() -> None:
    disk = Disk("/srv/loras", replace(RULE, grace_seconds=0))
    records = {name: an_adapter(name) for name in NAMES}
    disk.compare({"another"}, records)
    miss_twice(disk, NAMES[:2])
    assert set(disk.removals(records).held) == set(NAMES[:2])
    disk.learn(NAMES[9], Finding(signature=b"s", state=AdapterState.READY))
    assert not disk.removals(records).proven, "one that vanished with them is back, and they may be late"
    disk.compare(set(NAMES[2:]), records)
    miss_twice(disk, NAMES[:2])
    assert set(disk.removals(records).proven) == set(NAMES[:2])


def test_what_was_seen_and_not_examined_before_it_vanished_is_held_back() -> None:
    disk = Disk("/srv/loras", replace(RULE, grace_seconds=0))
    disk.expect(set(NAMES))
    disk.learn(NAMES[0], Finding(signature=b"s", state=AdapterState.READY))
    miss_twice(disk, NAMES[1:])
    assert set(disk.removals({}).held) == set(NAMES[1:])
    for name in NAMES[1:]:
        disk.learn(name, Finding(signature=b"s", state=AdapterState.READY))
    assert not disk.removals({}).held
    assert not disk.unexamined


def test_when_one_of_many_is_back_what_was_seen_of_the_others_proves_nothing() -> None:
    disk = Disk("/srv/loras", replace(RULE, grace_seconds=0))
    records = {name: an_adapter(name) for name in NAMES}
    miss_twice(disk, NAMES)
    assert set(disk.removals(records).held) == set(NAMES)
    for name in NAMES[:6]:
        disk.learn(name, Finding(signature=b"s", state=AdapterState.READY))
    assert disk.removals(records).look_again.keys() == set(NAMES[6:])
    miss_twice(disk, NAMES[6:])
    assert set(disk.removals(records).proven) == set(NAMES[6:])


def miss_twice(disk: Disk, names: list[str]) -> None:
    for name in names * 2:
        disk.learn(name, Absent())


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(st.floats(0, 100), st.integers(1, 3), st.floats(0, 60), st.booleans()),
    ),
    st.sets(st.sampled_from(NAMES)),
    st.booleans(),
)
def test_every_absent_name_is_either_proven_or_looked_at_again_and_proof_takes_two_looks(
    drawn: dict[str, tuple[float, int, float, bool]], served: set[str], confirmed: bool
) -> None:
    absent = {
        name: Absence(since, since + later if looks > 1 else since, looks, hurried)
        for name, (since, looks, later, hurried) in drawn.items()
    }
    removals = decide_removals(absent, served, RULE, confirmed=confirmed)
    assert set(removals.proven) | removals.look_again.keys() == absent.keys()
    assert not set(removals.proven) & removals.look_again.keys()
    assert all(absent[name].looks >= 2 for name in removals.proven)
    assert set(removals.held) <= removals.look_again.keys() & served
