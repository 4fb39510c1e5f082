"""How far a refresh has come, and what it is answered."""

from collections.abc import Collection
from datetime import UTC, datetime

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshStatus
from loradrop.watcher.refresh.progress import Progress
from loradrop.watcher.refresh.refresh import Refresh, answer, failed
from tests.catalog.values import an_adapter, revision

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
A, B = revision("a"), revision("b")


def advanced(
    progress: Progress,
    *,
    scans_done: int = 1,
    pending: Collection[str] = (),
    still_open: Collection[str] = (),
) -> Progress:
    return progress.advanced(
        scans_done=scans_done, pending=lambda: pending, is_open=lambda name: name in still_open
    )


def request(*names: str) -> RefreshRequest:
    return RefreshRequest(id="r1", at=NOON, names=names)


def test_it_waits_for_a_scan_that_began_after_it_was_asked_for() -> None:
    progress = Progress(scan=2)
    assert advanced(progress, scans_done=1) is progress
    assert advanced(progress, scans_done=2).is_over


def test_names_that_are_pending_when_the_scan_is_done_are_waited_for_and_no_later_ones() -> None:
    progress = advanced(Progress(1), pending=["a", "b"], still_open="ab")
    assert not progress.is_over
    assert not advanced(progress, pending=["c"], still_open="ac").is_over
    assert advanced(progress, pending=["c"], still_open="c").is_over


def test_one_open_name_is_reason_enough_and_the_others_are_not_asked_about() -> None:
    asked: list[str] = []

    def is_open(name: str) -> bool:
        asked.append(name)
        return True

    Progress(1).advanced(scans_done=1, pending=lambda: [f"a{n}" for n in range(1000)], is_open=is_open)
    assert len(asked) == 1


def test_of_a_refresh_of_names_only_those_are_waited_for() -> None:
    progress = advanced(Progress(0, frozenset({"a"})), scans_done=0, pending=["a", "b"], still_open="ab")
    assert progress.awaited == ("a",)
    assert (progress.covers("a"), progress.covers("b"), Progress(1).covers("b")) == (True, False, True)


def test_it_is_a_value_that_is_not_changed() -> None:
    progress = advanced(Progress(1), pending=["a"], still_open="a")
    assert advanced(progress).is_over
    assert not progress.is_over


def test_a_refresh_is_due_when_it_is_over_or_out_of_time_once_the_scan_is_done() -> None:
    waiting = Refresh(request(), Progress(1), {}, deadline=10.0)
    assert not waiting.is_due(11.0)
    scanned = Refresh(request(), advanced(Progress(1), pending=["a"], still_open="a"), {}, deadline=10.0)
    assert (scanned.is_due(9.9), scanned.is_due(10.0)) == (False, True)
    assert Refresh(request(), advanced(Progress(1)), {}, deadline=10.0).is_due(0.0)


def test_the_answer_says_what_changed_in_its_scope() -> None:
    records = {
        "new": an_adapter("new"),
        "updated": an_adapter("updated", revision=B),
        "other": an_adapter("other"),
        "bad": an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=Reason("r", "why")),
    }
    before = {"updated": A, "removed": A}
    everything = answer(request(), before, records, total=3, seq=7, at=NOON)
    assert (everything.discovered, everything.updated, everything.removed) == (
        ("new", "other"),
        ("updated",),
        ("removed",),
    )
    assert (everything.status, everything.total, everything.seq) == (RefreshStatus.SCANNED, 3, 7)
    assert dict(everything.rejected) == {"bad": Reason("r", "why")}
    named = answer(request("new", "unheard-of"), before, records, total=3, seq=7, at=NOON)
    assert (named.discovered, named.updated, named.removed, dict(named.rejected)) == (("new",), (), (), {})


def test_a_refresh_whose_scan_failed_says_why() -> None:
    result = failed(request(), Reason("prefix_missing", "gone"), at=NOON)
    assert (result.status, result.error) == (RefreshStatus.FAILED, Reason("prefix_missing", "gone"))
