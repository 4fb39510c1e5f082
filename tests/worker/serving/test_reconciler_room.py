"""More adapters than the engine has room for: all are served, in turn."""

import asyncio

from loradrop.catalog.status import WorkerState
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine
from tests.catalog.values import an_adapter, revision
from tests.worker.served import state_of


async def test_room_is_made_for_the_next_adapter_and_the_evicted_one_comes_back_when_asked_for(
    running: Reconciler, engine: FakeEngine
) -> None:
    digits = "12345"
    running.apply({f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits})
    for digit in digits:
        await running.resolve(f"a{digit}")
    assert len(engine.holds) == 4
    assert state_of(running, "a1") is WorkerState.LISTED, "it was loaded once, and is not now"
    assert (await running.resolve("a1")).revision == revision("1")
    assert len(engine.holds) == 4


async def test_many_adapters_asked_for_at_once_are_all_served_though_they_do_not_fit_together(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    digits = "0123456789"
    reconciler.apply({f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits})
    handles = await asyncio.gather(*(reconciler.resolve(f"a{digit}") for digit in digits))
    assert [handle.revision for handle in handles] == [revision(digit) for digit in digits]
