"""What a worker knows of one name, and how long it waits after failures."""

from datetime import timedelta

import pytest

from loradrop.catalog.adapter import Reason
from loradrop.catalog.status import WorkerState
from loradrop.worker.outcomes import Failed, NotServedYet, Rejected
from loradrop.worker.serving.entry import Entry
from tests.catalog.values import NOON, an_adapter, revision

FULL = Reason("disk_full", "The disk is full.")
A, B = revision("a"), revision("b")


def entry_for(revision_wanted: str | None = A) -> Entry:
    return Entry("sql", an_adapter("sql", revision=revision_wanted))


def test_pauses_double_up_to_five_minutes() -> None:
    entry = entry_for()
    pauses = []
    for _ in range(12):
        entry.note_failed(A, FULL, NOON)
        assert entry.fault is not None
        assert entry.fault.retry_at is not None
        pauses.append((entry.fault.retry_at - NOON).total_seconds())
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 300


def test_pauses_start_anew_after_a_success() -> None:
    entry = entry_for()
    entry.note_failed(A, FULL, NOON)
    entry.note_loaded(0.1)
    entry.note_failed(A, FULL, NOON)
    assert entry.fault is not None
    assert entry.fault.retry_at == NOON + timedelta(seconds=1)


def test_a_failure_counts_until_its_pause_is_over() -> None:
    entry = entry_for()
    entry.note_failed(A, FULL, NOON)
    assert entry.current_fault(NOON) is not None
    assert entry.current_fault(NOON + timedelta(seconds=1)) is None


def test_a_rejection_counts_for_its_revision_only_and_for_good() -> None:
    entry = entry_for()
    entry.note_rejected(A, FULL)
    assert entry.current_fault(NOON + timedelta(days=999)) is not None
    entry.adapter = an_adapter("sql", revision=B)
    assert entry.current_fault(NOON) is None


@pytest.mark.parametrize(
    ("serving", "loading", "wanted", "state"),
    [
        (A, False, A, WorkerState.LOADED),
        (A, True, B, WorkerState.LOADED),
        (None, True, A, WorkerState.LOADING),
    ],
)
def test_what_answers_comes_before_what_is_coming(
    serving: str | None, loading: bool, wanted: str, state: WorkerState
) -> None:
    entry = entry_for(wanted)
    entry.tries = int(loading)
    report = entry.report(serving)  # type: ignore[arg-type]  # a revision
    assert report is not None
    assert report.state is state
    assert report.revision == (serving or wanted)


def test_nothing_is_said_of_what_the_catalog_says_all_about() -> None:
    assert entry_for().report(None) is None


def test_what_was_loaded_once_keeps_its_figures() -> None:
    entry = entry_for()
    entry.note_loaded(0.25)
    report = entry.report(None)
    assert report is not None
    assert (report.state, report.loads, report.load_seconds) == (WorkerState.LISTED, 1, 0.25)


def test_a_fault_is_told_with_when_it_is_tried_again() -> None:
    entry = entry_for()
    entry.note_failed(A, FULL, NOON)
    report = entry.report(None)
    assert report is not None
    assert (report.state, report.reason, report.retry_at) == (
        WorkerState.FAILED,
        FULL,
        NOON + timedelta(seconds=1),
    )
    entry.note_rejected(A, FULL)
    report = entry.report(None)
    assert report is not None
    assert (report.state, report.retry_at) == (WorkerState.REJECTED, None)


def test_a_name_that_is_gone_is_draining() -> None:
    report = Entry("sql").report(None)
    assert report is not None
    assert (report.state, report.revision) == (WorkerState.DRAINING, None)


def test_outcomes_carry_a_code_and_a_sentence() -> None:
    assert (str(Rejected("a", "Bad.")), Failed("b", "Not now.").reason) == (
        "a: Bad.",
        Reason("b", "Not now."),
    )


def test_a_request_that_came_too_early_is_told_when_to_ask_again() -> None:
    error = NotServedYet(FULL, retry_after_seconds=7)
    assert (error.status, error.kind, error.headers) == (409, "ConflictError", {"Retry-After": "7"})
    assert str(error) == str(FULL)


def test_what_keeps_the_whole_worker_from_answering_is_a_503() -> None:
    error = NotServedYet(FULL, of_worker=True)
    assert (error.status, error.kind) == (503, "ServiceUnavailableError")


TAKEN = Reason("name_taken", "The base model has this name.")


def test_a_name_that_is_taken_is_rejected_only_where_a_revision_is_desired() -> None:
    assert entry_for(A).state(None, is_name_taken=True) is WorkerState.REJECTED
    assert entry_for(None).state(None, is_name_taken=True) is WorkerState.LISTED


def test_a_name_that_was_taken_while_its_adapter_is_loaded_reports_what_answers() -> None:
    report = entry_for(A).report(A, name_taken=TAKEN)
    assert report is not None
    assert (report.state, report.revision, report.reason) == (WorkerState.LOADED, A, None)


def test_a_fault_of_an_earlier_revision_says_nothing_of_the_desired_one() -> None:
    entry = entry_for(A)
    entry.note_failed(A, FULL, NOON)
    entry.adapter = an_adapter("sql", revision=B)
    assert entry.state(None) is WorkerState.LISTED
    entry.note_rejected(A, FULL)
    assert entry.state(None) is WorkerState.LISTED


def test_a_manual_load_takes_precedence_over_the_catalog() -> None:
    entry = entry_for(A)
    entry.manual = B
    assert entry.desired == B
