"""A request whose revision has just been replaced on disk waits for the catalog to say by what."""

import asyncio

import pytest

from loradrop.catalog.status import WorkerState
from loradrop.worker.outcomes import NotServedYet, UnknownModel
from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeStore, failed
from tests.catalog.values import revision
from tests.worker.served import until_state, wanted

OLD, NEW = revision("a"), revision("b")

pytestmark = pytest.mark.parametrize("code", ["source_gone", "changed_on_disk", "changed_while_copied"])


@pytest.fixture
async def waiting(reconciler: Reconciler, store: FakeStore, code: str) -> "asyncio.Task[object]":
    """A request that waits, since the old revision is not there to be copied."""
    reconciler.apply(wanted("sql", OLD))
    store.outcomes["sql"].append(failed(code))
    request: asyncio.Task[object] = asyncio.create_task(reconciler.resolve("sql"))
    await until_state(reconciler, "sql", WorkerState.FAILED)
    return request


async def test_it_is_answered_from_the_revision_published_next(
    reconciler: Reconciler, waiting: "asyncio.Task[object]", code: str
) -> None:
    late = asyncio.create_task(reconciler.resolve("sql"))
    reconciler.apply(wanted("other", OLD))
    reconciler.apply(wanted("sql", NEW))
    handles = await asyncio.gather(waiting, late)
    assert [getattr(handle, "revision", None) for handle in handles] == [NEW, NEW]


async def test_it_is_told_that_the_adapter_is_gone_once_that_is_known(
    reconciler: Reconciler, waiting: "asyncio.Task[object]", code: str
) -> None:
    reconciler.apply({"sql": None})
    with pytest.raises(UnknownModel):
        await waiting


@pytest.mark.parametrize("timings", [Timings(catalog_wait_seconds=0.05)], ids=["a moment"])
async def test_it_is_told_to_come_back_where_the_catalog_says_nothing(
    reconciler: Reconciler, store: FakeStore, code: str
) -> None:
    reconciler.apply(wanted("sql", OLD))
    store.outcomes["sql"].append(failed(code))
    with pytest.raises(NotServedYet) as caught:
        await reconciler.resolve("sql")
    assert caught.value.reason.code == code
