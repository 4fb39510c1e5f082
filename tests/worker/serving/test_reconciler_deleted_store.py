"""A private store that is deleted while it is used: what is served is copied again, and not loaded again."""

import asyncio

from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.served import wanted


async def test_what_is_served_is_copied_again_without_a_request(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    store.delete()
    assert not running.is_there("sql")
    await wait_until(lambda: running.is_there("sql"), timeout=5, description="its files are there again")
    assert (len(engine.loads), len(store.sources)) == (1, 2)
    await wait_until(
        lambda: store.pinned() == [revision("a")], timeout=5, description="the old pin is released"
    )


async def test_a_request_waits_for_the_copy_and_gets_the_same(
    reconciler: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    handle = await reconciler.resolve("sql")
    assert reconciler.is_loaded(handle.lora_id)
    store.delete()
    store.gate.clear()
    request = asyncio.create_task(reconciler.resolve("sql"))
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="it is being copied")
    assert not request.done()
    store.gate.set()
    assert await request == handle
    assert len(engine.loads) == 1


async def test_names_that_lead_to_the_same_content_are_loaded_once(
    reconciler: Reconciler, engine: FakeEngine, table: FakeTable
) -> None:
    reconciler.apply(wanted("sql", revision("a")) | wanted("copy", revision("a")))
    handles = await asyncio.gather(reconciler.resolve("sql"), reconciler.resolve("copy"))
    assert len({handle.lora_id for handle in handles}) == 1
    assert len(engine.loads) == 1
    assert set(table.served) == {"sql", "copy"}
