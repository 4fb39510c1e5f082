"""The long list says of each adapter what its own route says, however it is made."""

import json

from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.adapter import Adapter, AdapterState, WeightsFormat
from loradrop.catalog.http.adapter_stream import adapter_rows, listed_rows
from loradrop.catalog.http.views import ReportedWorker, adapter_view
from loradrop.catalog.status import WorkerAdapter, WorkerRevision, WorkerState
from tests.catalog.values import a_worker, an_adapter, any_reason, any_revision, any_text, any_time

NAMES = ("one", "two")
any_seconds = st.none() | st.floats(0, 1e6, allow_nan=False)
any_adapter = st.builds(
    Adapter,
    name=st.sampled_from(NAMES) | any_text,
    prefix=any_text,
    path=any_text,
    revision=st.none() | any_revision,
    state=st.sampled_from(AdapterState),
    discovered_at=any_time,
    updated_at=any_time,
    reason=st.none() | any_reason,
    size_bytes=st.integers(0, 1 << 40),
    format=st.none() | st.sampled_from(WeightsFormat),
    rank=st.none() | st.integers(1, 512),
    base_model=st.none() | any_text,
    seq=st.integers(0, 9),
)
any_said = st.builds(
    WorkerAdapter,
    state=st.sampled_from(WorkerState),
    revision=st.none() | any_revision,
    reason=st.none() | any_reason,
    loads=st.integers(0, 9),
    load_seconds=any_seconds,
    last_used=st.none() | any_time,
    revisions=st.lists(
        st.builds(
            WorkerRevision,
            revision=any_revision,
            state=st.sampled_from(WorkerState),
            resident=st.booleans(),
            pinned=st.booleans(),
            load_seconds=any_seconds,
        ),
        max_size=2,
    ).map(tuple),
)
any_picture = st.builds(
    lambda epoch, seq, said: ReportedWorker(a_worker(epoch=epoch, observed_seq=seq), said),
    st.sampled_from(["now", "before"]),
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(NAMES), any_said),
)


@given(any_adapter, st.dictionaries(any_text, any_picture, max_size=3))
def test_a_row_is_the_view_of_the_adapter(adapter: Adapter, workers: dict[str, ReportedWorker]) -> None:
    [row] = adapter_rows([adapter], "now", workers)
    assert json.loads(row) == adapter_view(adapter, "now", workers).model_dump(mode="json")


async def test_rows_are_one_list_however_many_chunks_they_fill() -> None:
    adapters = [an_adapter(f"adapter-{number}") for number in range(2_000)]
    for count in (0, 1, 2_000):
        chunks = [chunk async for chunk in listed_rows(adapter_rows(adapters[:count], "now", {}))]
        body = json.loads(b"".join(chunks))
        assert body["object"] == "list"
        assert [row["id"] for row in body["data"]] == [adapter.name for adapter in adapters[:count]]
    assert len(chunks) > 1
