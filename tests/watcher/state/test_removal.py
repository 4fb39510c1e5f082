"""When an adapter is really gone."""

from hypothesis import given
from hypothesis import strategies as st

from loradrop.watcher.state.removal import Absence, RemovalRule, decide_removals, is_mass, miss, miss_anew

RULE = RemovalRule(grace_seconds=1.0, mass_share=0.5, mass_count=3, mass_grace_seconds=30.0)
NAMES = [f"a{number}" for number in range(10)]


def missed(*times: float) -> Absence:
    absence = None
    for now in times:
        absence = miss(absence, now=now)
    assert absence is not None
    return absence


def test_one_examination_proves_nothing() -> None:
    removals = decide_removals({"a0": missed(5.0)}, RULE)
    assert removals.proven == ()
    assert removals.look_again == {"a0": 6.0}


def test_two_examinations_within_the_grace_prove_nothing() -> None:
    assert decide_removals({"a0": missed(5.0, 5.9)}, RULE).proven == ()


def test_two_examinations_apart_by_the_grace_prove_it() -> None:
    assert decide_removals({"a0": missed(5.0, 6.0)}, RULE).proven == ("a0",)


def test_what_was_seen_before_a_name_counted_as_late_is_no_examination() -> None:
    once = miss(miss_anew(now=5.0), now=7.0)
    assert decide_removals({"a0": once}, RULE).proven == ()
    assert decide_removals({"a0": miss(once, now=7.5)}, RULE).proven == ("a0",)


def test_while_a_refresh_waits_it_takes_two_examinations_and_a_short_grace() -> None:
    early = decide_removals({"a0": missed(5.0, 5.2)}, RULE, is_hurried=lambda _: True)
    assert early.look_again == {"a0": 5.25}
    assert decide_removals({"a0": missed(5.0, 5.25)}, RULE, is_hurried=lambda _: True).proven == ("a0",)
    assert decide_removals({"a0": missed(5.0, 5.25)}, RULE, is_hurried=lambda _: False).proven == ()


def test_a_mass_removal_waits_for_the_long_grace() -> None:
    absent = {name: missed(5.0, 6.5) for name in NAMES[:6]}
    removals = decide_removals(absent, RULE, held=set(NAMES[:6]), is_hurried=lambda _: True)
    assert removals.proven == ()
    assert set(removals.look_again.values()) == {35.0}


def test_a_mass_removal_is_made_once_an_examination_after_the_long_grace_agrees() -> None:
    absent = {name: missed(5.0, 6.5, 35.0) for name in NAMES[:6]}
    assert set(decide_removals(absent, RULE, held=set(NAMES[:6])).proven) == set(NAMES[:6])


def test_the_operator_can_confirm_a_mass_removal() -> None:
    absent = {name: missed(5.0, 5.1) for name in NAMES}
    assert set(decide_removals(absent, RULE, held=set(NAMES), confirmed=True).proven) == set(NAMES)


def test_only_most_of_the_adapters_that_are_more_than_a_few_are_a_mass() -> None:
    assert is_mass(6, lambda: 10, RULE)
    assert not is_mass(5, lambda: 10, RULE)
    assert not is_mass(3, lambda: 3, RULE)
    assert is_mass(4, lambda: 4, RULE)


def test_how_many_are_served_is_not_counted_for_the_loss_of_a_few() -> None:
    def never() -> int:
        raise AssertionError("counted")

    assert not is_mass(RULE.mass_count, never, RULE)


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(st.floats(0, 100), st.integers(1, 3), st.floats(0, 60)),
    ),
    st.sets(st.sampled_from(NAMES)),
    st.booleans(),
    st.booleans(),
)
def test_every_absent_name_is_either_proven_or_examined_again_and_proof_takes_two_examinations(
    drawn: dict[str, tuple[float, int, float]], held: set[str], hurried: bool, confirmed: bool
) -> None:
    absent = {
        name: Absence(since, since + later if examinations > 1 else since, examinations)
        for name, (since, examinations, later) in drawn.items()
    }
    removals = decide_removals(absent, RULE, held=held, is_hurried=lambda _: hurried, confirmed=confirmed)
    assert set(removals.proven) | removals.look_again.keys() == absent.keys()
    assert not set(removals.proven) & removals.look_again.keys()
    assert all(absent[name].examinations >= 2 for name in removals.proven)
