"""Findings against the catalog's records."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision, WeightsFormat
from loradrop.watcher.prefix.findings import Facts, Finding, Unreadable
from loradrop.watcher.state.records import difference, is_rewording, record_for, with_collision

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
ONE, TWO = Revision("1" * 64), Revision("2" * 64)


def ready(revision: Revision = ONE) -> Finding:
    facts = Facts(WeightsFormat.SAFETENSORS, 1234, 8, "base")
    return Finding(signature=b"s", state=AdapterState.READY, facts=facts, revision=revision)


def unready(state: AdapterState, code: str = "why", message: str = "because") -> Finding:
    return Finding(signature=b"s", state=state, reason=Reason(code, message))


def record(found: Finding | Unreadable, known: Adapter | None = None, now: datetime = NOW) -> Adapter:
    return record_for("sql", "/p", found, known, now=now)


def test_a_ready_adapter_is_recorded_with_its_facts() -> None:
    made = record(ready())
    assert (made.revision, made.state, made.reason) == (ONE, AdapterState.READY, None)
    assert (made.size_bytes, made.format, made.rank, made.base_model) == (
        1234,
        WeightsFormat.SAFETENSORS,
        8,
        "base",
    )
    assert made.discovered_at == made.updated_at == NOW


def test_the_same_finding_again_gives_the_very_record_back() -> None:
    known = record(ready())
    assert record(ready(), known, LATER) is known


def test_an_adapter_that_was_never_ready_has_no_facts() -> None:
    made = record(unready(AdapterState.REJECTED))
    assert (made.revision, made.size_bytes, made.format, made.rank) == (None, 0, None, None)
    assert made.reason == Reason("why", "because")


def test_the_last_good_revision_stays_while_the_disk_says_something_else() -> None:
    known = record(ready())
    for state in (AdapterState.INCOMPLETE, AdapterState.SETTLING, AdapterState.REJECTED):
        made = record(unready(state), known, LATER)
        assert (made.revision, made.rank, made.state) == (ONE, 8, state)
        assert (made.discovered_at, made.updated_at) == (NOW, LATER)


def test_an_unreadable_adapter_is_unknown_and_stays_served() -> None:
    made = record(Unreadable(Reason("disk_error", "EIO")), record(ready()), LATER)
    assert (made.revision, made.state) == (ONE, AdapterState.UNKNOWN)


def test_only_other_words_for_the_same_reason_are_a_rewording() -> None:
    known = record(unready(AdapterState.INCOMPLETE, "weights_truncated", "1 of 9"))
    assert is_rewording(record(unready(AdapterState.INCOMPLETE, "weights_truncated", "2 of 9"), known), known)
    assert not is_rewording(
        record(unready(AdapterState.INCOMPLETE, "config_missing", "2 of 9"), known), known
    )
    other_state = unready(AdapterState.SETTLING, "weights_truncated", "2 of 9")
    assert not is_rewording(record(other_state, known), known)
    assert not is_rewording(record(ready(), known), known)
    assert not is_rewording(known, None)
    assert not is_rewording(known, replace(known, reason=None))
    assert not is_rewording(replace(known, reason=None), known)


def test_a_colliding_name_is_rejected_and_a_served_one_stays_served() -> None:
    reason = Reason("name_twin", "x")
    new = with_collision(record(ready()), None, reason)
    assert (new.revision, new.state, new.reason) == (None, AdapterState.REJECTED, reason)
    assert (new.size_bytes, new.format, new.rank, new.base_model) == (0, None, None, None)
    elsewhere = replace(record(unready(AdapterState.INCOMPLETE)), prefix="/elsewhere")
    assert with_collision(record(ready(), elsewhere), elsewhere, reason).prefix == "/p"
    known = record(ready())
    served = with_collision(record(ready(TWO), known, LATER), known, reason)
    assert (served.revision, served.state) == (ONE, AdapterState.REJECTED)
    assert with_collision(record(ready(TWO), served, LATER), served, reason) is served


revisions = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([ONE, TWO]))


@given(revisions, revisions)
def test_the_difference_says_exactly_what_changed(
    before: dict[str, Revision], after: dict[str, Revision]
) -> None:
    change = difference(before, after)
    rebuilt = {name: revision for name, revision in before.items() if name not in change.removed}
    rebuilt |= {name: after[name] for name in (*change.discovered, *change.updated)}
    assert rebuilt == after
    assert not set(change.discovered) & before.keys()
    assert all(before[name] != after[name] for name in change.updated)
