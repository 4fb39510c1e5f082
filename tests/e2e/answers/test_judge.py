"""The judge of answers, on histories made by hand: what the contract allows, and each way to break it."""

from dataclasses import replace

import pytest

from tests.e2e.answers.judge import Answer, Applied, History, Offer, Pointing, evidence, fault, strays

NOT_POINTED_TO = "matches a revision that its name did not point to"
OTHER_WEIGHTS = "matches another revision than it was admitted with"
UNKNOWN_TEXT = "matches no revision that ever was"
KNOWN = "refused a name that was known"


def catalog(**offered: str | None) -> list[Offer]:
    """Return offers by time, `t3="A"` for A from 3.0 on; the sequence numbers count from 1."""
    return [
        Offer(float(at[1:]), seq, revision) for seq, (at, revision) in enumerate(offered.items(), start=1)
    ]


def worker(**pointed: str | None) -> list[Pointing]:
    """Return pointings by time, in the same way."""
    return [Pointing(float(at[1:]), revision) for at, revision in pointed.items()]


def history(offers: list[Offer], pointings: list[Pointing], *applied: Applied) -> History:
    return History({"sql": offers}, {"sql": pointings}, applied)


def answered(revision: str | None, *, sent: float, started: float, admitted: str | None = None) -> Answer:
    return Answer(
        "sql", sent, started, revision=revision, admitted=Pointing(sent, admitted) if admitted else None
    )


def refused(*, sent: float, started: float, status: int = 404) -> Answer:
    return Answer("sql", sent, started, status=status, error="no")


UPDATE = history(catalog(t1="A", t10="B"), worker(t2="A", t20="B"))
"""B is published at 10 and loaded at 20."""

ROLLBACK = history(catalog(t1="A", t10="B", t19="A"), worker(t2="A", t20="B", t30="A"))
"""B is published at 10 and rolled back at 19; the worker hears of that only after it has loaded B."""


def test_the_old_revision_answers_until_the_new_one_is_loaded() -> None:
    assert fault(answered("A", sent=15, started=16), UPDATE) is None


def test_the_old_revision_no_longer_answers_once_the_new_one_is_loaded() -> None:
    assert fault(answered("A", sent=21, started=22), UPDATE) == NOT_POINTED_TO


def test_the_new_revision_does_not_answer_before_it_is_loaded() -> None:
    assert fault(answered("B", sent=15, started=16), UPDATE) == NOT_POINTED_TO


@pytest.mark.parametrize("revision", ["A", "B"])
def test_either_may_answer_a_request_sent_before_the_switch_and_begun_after(revision: str) -> None:
    assert fault(answered(revision, sent=19.9, started=20.1), UPDATE) is None


def test_a_revision_rolled_back_while_it_was_loaded_answers_until_the_rollback_is_loaded() -> None:
    assert fault(answered("B", sent=21, started=22), ROLLBACK) is None


def test_what_the_catalog_holds_is_no_excuse_where_something_else_is_loaded() -> None:
    assert fault(answered("A", sent=21, started=22), ROLLBACK) == NOT_POINTED_TO


@pytest.mark.parametrize("revision", ["A", "B"])
def test_a_revision_that_was_loaded_for_a_moment_may_answer_who_asked_around_it(revision: str) -> None:
    moment = history(catalog(t1="A", t2="B", t3="A"), worker(t1="A", t10="B", t11="A"))
    assert fault(answered(revision, sent=9, started=12), moment) is None


def test_a_revision_that_was_loaded_for_a_moment_answers_no_request_sent_afterwards() -> None:
    moment = history(catalog(t1="A", t2="B", t3="A"), worker(t1="A", t10="B", t11="A"))
    assert fault(answered("B", sent=11.5, started=12), moment) == NOT_POINTED_TO


def test_the_first_request_is_answered_from_what_it_brought() -> None:
    first = history(catalog(t1="A"), worker(t5="A"))
    assert fault(answered("A", sent=2, started=6), first) is None


def test_a_removed_revision_answers_who_asked_before_it_was_withdrawn() -> None:
    removed = history(catalog(t1="A", t10=None), worker(t2="A", t11=None))
    assert fault(answered("A", sent=10.5, started=12), removed) is None
    assert fault(answered("A", sent=11.5, started=12), removed) == NOT_POINTED_TO


def test_an_answer_from_a_name_never_pointed_to_anything_is_wrong() -> None:
    assert fault(answered("A", sent=2, started=3), history(catalog(t1="A"), [])) == NOT_POINTED_TO


def test_text_of_no_revision_is_wrong_whenever_it_comes() -> None:
    assert fault(answered(None, sent=19, started=21), UPDATE) == UNKNOWN_TEXT


def test_text_of_another_revision_than_was_admitted_is_wrong_even_while_the_name_switches() -> None:
    assert fault(answered("A", sent=19, started=21, admitted="B"), UPDATE) == OTHER_WEIGHTS
    assert fault(answered("A", sent=19, started=21, admitted="A"), UPDATE) is None


def test_a_request_admitted_after_the_switch_gets_the_new_revision_though_it_was_sent_before() -> None:
    before, after = (Pointing(19, "A"), Pointing(20.5, "B"))
    for admitted, wrong in ((before, "B"), (after, "A")):
        right = Answer("sql", 18, 22, revision=admitted.revision, admitted=admitted)
        assert fault(right, UPDATE) is None
        late = Pointing(admitted.at, wrong)
        assert fault(replace(right, revision=wrong, admitted=late), UPDATE) == NOT_POINTED_TO


def test_any_failure_of_a_request_is_wrong() -> None:
    assert fault(refused(sent=19, started=21, status=500), UPDATE) == "failed"
    assert fault(refused(sent=19, started=21, status=200), UPDATE) == "failed"


@pytest.mark.parametrize(
    ("applied", "found"),
    [
        pytest.param(Applied(2, 1), KNOWN, id="the worker said so before the request"),
        pytest.param(Applied(4, 1), None, id="the worker said so later"),
        pytest.param(Applied(2, 0), None, id="the worker had not come as far"),
    ],
)
def test_a_name_may_be_refused_until_the_worker_has_heard_of_it(applied: Applied, found: str | None) -> None:
    assert fault(refused(sent=3, started=5), history(catalog(t1="A"), [], applied)) == found


def test_a_name_may_be_refused_if_it_was_gone_before_the_answer() -> None:
    gone = history(catalog(t1="A", t10=None, t20="A"), [], Applied(2, 1), Applied(21, 3))
    assert fault(refused(sent=9, started=11), gone) is None
    assert fault(refused(sent=12, started=13), gone) is None
    assert fault(refused(sent=12, started=21), gone) is None
    assert fault(refused(sent=20.5, started=21), gone) is None, "its return is not known to have been heard"
    assert fault(refused(sent=22, started=23), gone) == KNOWN
    assert fault(refused(sent=5, started=6), gone) == KNOWN


def test_an_update_does_not_make_a_name_unknown() -> None:
    updated = history(catalog(t1="A", t10="B"), [], Applied(2, 1))
    assert fault(refused(sent=11, started=12), updated) == KNOWN


def test_pointing_follows_the_catalog_in_its_order_and_may_leave_out() -> None:
    followed = history(catalog(t1="A", t2="B", t3=None, t4="C", t5="A"), worker(t2="A", t6="C", t7="A"))
    assert list(strays(followed)) == []


def test_a_name_that_made_room_points_to_nothing_until_it_is_loaded_again() -> None:
    pointings = [Pointing(2, "A"), Pointing(5, None, for_room=True), Pointing(9, "A")]
    roomy = history(catalog(t1="A"), pointings)
    assert list(strays(roomy)) == []
    assert fault(answered("A", sent=4, started=6), roomy) is None
    assert fault(answered("A", sent=6, started=7), roomy) == NOT_POINTED_TO


@pytest.mark.parametrize(
    "pointings",
    [
        pytest.param(worker(t2="X"), id="never published"),
        pytest.param(worker(t4="B"), id="before it was published"),
        pytest.param(worker(t6="B", t7="A"), id="back, with no rollback in the catalog"),
        pytest.param(worker(t2="A", t3=None), id="withdrawn, and never removed"),
    ],
)
def test_pointing_to_what_the_catalog_does_not_hold_is_told(pointings: list[Pointing]) -> None:
    assert len(list(strays(history(catalog(t1="A", t5="B"), pointings)))) == 1


def test_evidence_tells_what_catalog_and_worker_held_in_seconds_from_the_request() -> None:
    told = evidence(
        answered("A", sent=21, started=22, admitted="A"),
        history(list(UPDATE.offers["sql"]), list(UPDATE.pointings["sql"]), Applied(20.5, 2)),
    )
    assert told.splitlines() == [
        "sql: sent 0, started +1.000, status 200, answered from A, ",
        "  +0.000 admitted with A",
        "  -20.000 catalog seq 1: A",
        "  -19.000 worker: A",
        "  -11.000 catalog seq 2: B",
        "  -1.000 worker: B",
        "  -0.500 worker has applied seq 2",
    ]
