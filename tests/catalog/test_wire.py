"""Every value comes back from its text as it went in."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.catalog.errors import CatalogUnavailable, RecordInvalid
from loradrop.catalog.events import EventType, RefreshRequest
from loradrop.catalog.status import (
    RefreshResult,
    RefreshStatus,
    WatcherStatus,
    WorkerAdapter,
    WorkerRevision,
    WorkerState,
    WorkerStatus,
)
from loradrop.catalog.wire import (
    decode_adapter,
    decode_event,
    decode_place,
    decode_seq,
    decode_worker_adapter,
    encode_adapter,
    encode_worker_adapter,
    from_fields,
    to_fields,
)
from tests.catalog.values import (
    NOON,
    TRUNCATED,
    a_watcher,
    a_worker,
    an_adapter,
    any_reason,
    any_revision,
    any_text,
    any_time,
    revision,
)

adapters = st.builds(
    Adapter,
    name=any_text,
    prefix=any_text,
    path=any_text,
    revision=st.none() | any_revision,
    state=st.sampled_from(AdapterState),
    discovered_at=any_time,
    updated_at=any_time,
    reason=st.none() | any_reason,
    base_model=st.none() | any_text,
)
worker_adapters = st.builds(
    WorkerAdapter,
    state=st.sampled_from(WorkerState),
    revision=st.none() | any_revision,
    reason=st.none() | any_reason,
    last_used=st.none() | any_time,
    retry_at=st.none() | any_time,
    revisions=st.lists(
        st.builds(
            WorkerRevision,
            revision=any_revision,
            state=st.sampled_from(WorkerState),
            load_seconds=st.none() | st.floats(0, 1e6),
        ),
        max_size=3,
    ).map(tuple),
)
counts = st.dictionaries(any_text, st.integers(0, 10**9), max_size=3)
travelling: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        WorkerStatus,
        id=any_text,
        base_model=any_text,
        url=any_text,
        vllm_version=any_text,
        started_at=any_time,
        last_heartbeat=any_time,
        epoch=st.none() | any_text.filter(bool),
        counts=counts,
        degraded=st.none() | any_reason,
    ),
    st.builds(
        WatcherStatus,
        owner=any_text,
        prefix=any_text,
        heartbeat_at=any_time,
        degraded=st.none() | any_reason,
        last_scan_at=st.none() | any_time,
        last_scan_seconds=st.none() | st.floats(0, 1e6),
        interval_seconds=st.floats(0, 1e6),
        counts=st.dictionaries(st.sampled_from(AdapterState), st.integers(0, 10**9)),
    ),
    st.builds(
        RefreshRequest,
        id=any_text,
        at=any_time,
        names=st.lists(any_text, max_size=3).map(tuple),
        timeout_seconds=st.floats(0.1, 600),
    ),
    st.builds(
        RefreshResult,
        id=any_text,
        status=st.sampled_from(RefreshStatus),
        at=any_time,
        discovered=st.lists(any_text, max_size=3).map(tuple),
        updated=st.lists(any_text, max_size=3).map(tuple),
        removed=st.lists(any_text, max_size=3).map(tuple),
        rejected=st.dictionaries(any_text, any_reason, max_size=3),
        error=st.none() | any_reason,
    ),
)


@given(adapters, st.integers(0, 2**53))
def test_a_record_comes_back_with_the_seq_it_was_published_under(adapter: Adapter, seq: int) -> None:
    record = encode_adapter(adapter)
    assert decode_adapter(f'{{"seq":{seq},{record[1:]}') == replace(adapter, seq=seq)


@given(worker_adapters)
def test_what_a_worker_says_of_an_adapter_comes_back(adapter: WorkerAdapter) -> None:
    assert decode_worker_adapter(encode_worker_adapter(adapter)) == adapter


def test_a_record_of_a_worker_that_says_nothing_of_revisions_is_read() -> None:
    record = '{"state":"loaded","revision":null,"reason":null,"loads":2,"last_used":null}'
    assert decode_worker_adapter(record) == WorkerAdapter(state=WorkerState.LOADED, loads=2)


@given(travelling)
def test_a_value_comes_back_from_flat_text(value: Any) -> None:
    fields = to_fields(value)
    assert all(isinstance(text, str) for text in fields.values())
    assert from_fields(type(value), fields) == value


def test_fields_are_text_that_an_operator_can_read() -> None:
    fields = to_fields(a_watcher(degraded=None))
    assert fields["last_scan_at"] == "2026-11-23T12:00:00Z"
    assert fields["degraded"] == ""
    assert fields["counts"] == '{"ready":2}'


def test_fields_of_a_newer_version_are_ignored_and_missing_ones_take_their_default() -> None:
    fields = to_fields(a_worker()) | {"added_in_2027": "x"}
    del fields["max_loras"]
    assert from_fields(WorkerStatus, fields).max_loras == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"started_at": "noon"},
        {"last_heartbeat": "2026-11-23T12:00:00"},
        {"counts": "{"},
        {"observed_seq": "many"},
    ],
)
def test_fields_that_are_not_ours_are_invalid(changed: dict[str, str]) -> None:
    with pytest.raises(RecordInvalid):
        from_fields(WorkerStatus, to_fields(a_worker()) | changed)


@pytest.mark.parametrize("record", ["", "{", "[]", "null", '{"name": "x"}', '"text"', "�"])
def test_a_record_that_is_not_ours_is_invalid(record: str) -> None:
    with pytest.raises(RecordInvalid):
        decode_adapter(record)
    with pytest.raises(RecordInvalid):
        decode_worker_adapter(record)


ENTRY = {
    "epoch": "e",
    "seq": "7",
    "type": "noted",
    "name": "sql_adapter",
    "revision": "",
    "state": "rejected",
    "reason_code": TRUNCATED.code,
    "reason": TRUNCATED.message,
    "at": "2026-11-23T12:00:00Z",
}


def test_an_event_is_read_from_its_flat_entry() -> None:
    event = decode_event(ENTRY)
    assert (event.seq, event.type, event.at) == (7, EventType.NOTED, NOON)
    assert (event.revision, event.state, event.reason) == (None, AdapterState.REJECTED, TRUNCATED)


def test_an_event_without_a_reason_has_none() -> None:
    event = decode_event(ENTRY | {"reason_code": "", "revision": revision("a"), "state": ""})
    assert (event.revision, event.state, event.reason) == (revision("a"), None, None)


@pytest.mark.parametrize(
    "changed", [{"seq": "one"}, {"type": "renamed"}, {"state": "odd"}, {"at": ""}, {"epoch": None}]
)
def test_an_entry_that_is_not_ours_is_invalid(changed: dict[str, str | None]) -> None:
    entry = {key: value for key, value in (ENTRY | changed).items() if value is not None}
    with pytest.raises(RecordInvalid):
        decode_event(entry)


def test_the_place_of_an_entry_is_its_epoch_and_seq() -> None:
    event = decode_event(ENTRY)
    assert decode_place(ENTRY) == (event.epoch, event.seq)


@pytest.mark.parametrize("changed", [{"seq": "one"}, {"seq": None}, {"epoch": None}, {"name": None}])
def test_an_entry_without_a_place_or_a_name_is_invalid(changed: dict[str, str | None]) -> None:
    entry = {key: value for key, value in (ENTRY | changed).items() if value is not None}
    with pytest.raises(RecordInvalid):
        decode_place(entry)


def test_an_adapter_without_a_revision_is_written_as_null() -> None:
    assert '"revision":null' in encode_adapter(an_adapter(revision=None))


def test_a_record_with_a_time_of_no_zone_is_invalid() -> None:
    record = encode_adapter(an_adapter("sql"))
    assert decode_adapter(record)
    with pytest.raises(RecordInvalid):
        decode_adapter(re.sub(r'Z"', '"', record))


@pytest.mark.parametrize("field", ["interval_seconds", "last_scan_seconds"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "-1", "1e999"])
def test_a_duration_that_json_cannot_hold_is_invalid(field: str, seconds: str) -> None:
    with pytest.raises(RecordInvalid):
        from_fields(WatcherStatus, to_fields(a_watcher()) | {field: seconds})


@pytest.mark.parametrize("seconds", ["nan", "0", "-1", "601", "1e999"])
def test_a_refresh_that_no_port_asked_for_is_invalid(seconds: str) -> None:
    with pytest.raises(RecordInvalid):
        from_fields(RefreshRequest, to_fields(RefreshRequest(id="r", at=NOON)) | {"timeout_seconds": seconds})


@pytest.mark.parametrize("text", [None, "", "many", "-1", "1.5", "²", "٣", "9" * 15, "9" * 5000])
def test_a_seq_that_no_watcher_wrote_is_damage(text: str | None) -> None:
    with pytest.raises(CatalogUnavailable) as damaged:
        decode_seq(text)
    assert len(damaged.value.message) < 200
    assert decode_seq("9" * 14) == 10**14 - 1
