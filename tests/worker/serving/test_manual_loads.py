"""Adapters loaded and unloaded by hand: from under the prefix only, and until they are unloaded."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from loradrop.catalog.adapter import Revision
from loradrop.catalog.status import WorkerState
from loradrop.worker.outcomes import Failed, Rejected, UnknownModel
from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.store.deadline import Deadline
from testkit.fakes import FakeEngine, FakeStore, FakeTable, failed, rejected
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.conftest import Run
from tests.worker.served import (
    a_directory,
    catalog_of,
    until_forgotten,
    until_serves,
    wanted,
)


async def test_a_directory_under_the_prefix_can_be_loaded_and_unloaded_by_hand(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore, tmp_path: Path, no_grace: None
) -> None:
    run(0)
    path = a_directory(tmp_path, "drafts/sql")
    answer = await reconciler.manual_loads.load("draft", str(path), in_place=False)
    assert answer == "Success: LoRA adapter 'draft' added successfully."
    assert (await reconciler.resolve("draft")).revision == store.unnamed
    assert (store.sources[0].path, store.sources[0].revision) == ("drafts/sql", None)
    assert reconciler.listed() == [], "vLLM's own table lists it"

    answer = await reconciler.manual_loads.unload("draft")
    assert answer == "Success: LoRA adapter 'draft' removed successfully."
    await until_forgotten(reconciler, "draft")
    assert (engine.holds, store.pinned()) == ({}, [])
    with pytest.raises(UnknownModel):
        await reconciler.manual_loads.unload("draft")


async def test_a_path_relative_to_the_prefix_will_do(
    reconciler: Reconciler, store: FakeStore, tmp_path: Path
) -> None:
    a_directory(tmp_path, "sql")
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    assert store.sources[0].path == "sql"


@pytest.mark.parametrize("path", ["/etc", "../elsewhere", ".", "sql/../..", "link"])
async def test_nothing_outside_the_prefix_is_loaded_by_hand(
    reconciler: Reconciler, tmp_path: Path, path: str
) -> None:
    (tmp_path / "loras" / "link").symlink_to("/etc")
    with pytest.raises(PermissionError, match="--lora-dir-prefix"):
        await reconciler.manual_loads.load("draft", path, in_place=False)
    assert not any(reconciler.status.counts().values())


@pytest.mark.parametrize("path", ["with\0zero", "loop"])
async def test_a_path_that_leads_nowhere_is_refused_by_hand(
    reconciler: Reconciler, tmp_path: Path, path: str
) -> None:
    (tmp_path / "loras" / "loop").symlink_to("loop")
    with pytest.raises(PermissionError, match="--lora-dir-prefix"):
        await reconciler.manual_loads.load("draft", path, in_place=False)


@pytest.mark.parametrize("timings", [Timings(deadline=Deadline(base_seconds=0.0))], ids=["no time"])
async def test_a_prefix_that_does_not_answer_in_time_is_a_failure_by_hand(
    reconciler: Reconciler, store: FakeStore
) -> None:
    with pytest.raises(Failed, match="prefix_timed_out"):
        await reconciler.manual_loads.load("draft", "sql", in_place=False)
    assert store.sources == []


async def test_a_larger_adapter_is_given_more_time_by_hand_too(
    reconciler: Reconciler, store: FakeStore, tmp_path: Path
) -> None:
    (a_directory(tmp_path, "sql") / "adapter_model.safetensors").write_bytes(b"x" * 1234)
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    assert store.sources[0].size_bytes == 1234


async def test_nothing_is_loaded_by_hand_without_a_prefix(
    engine: FakeEngine, table: FakeTable, store: FakeStore
) -> None:
    reconciler = Reconciler(engine, table, store.prepare, prefix=None, capacity=2)
    with pytest.raises(PermissionError, match="--lora-dir-prefix"):
        await reconciler.manual_loads.load("draft", "/loras/sql", in_place=False)


@pytest.mark.parametrize(("outcome", "kind"), [(rejected(), Rejected), (failed(), Failed)])
async def test_what_goes_wrong_by_hand_is_said_and_forgotten(
    reconciler: Reconciler, store: FakeStore, tmp_path: Path, outcome: Exception, kind: type[Exception]
) -> None:
    store.outcomes["sql"].append(outcome)
    with pytest.raises(kind):
        await reconciler.manual_loads.load("draft", "sql", in_place=False)
    assert not any(reconciler.status.counts().values())
    reconciler.replace({})
    with pytest.raises(UnknownModel):
        await reconciler.resolve("draft")


async def test_a_path_where_nothing_is_is_said_in_vllms_words(
    reconciler: Reconciler, store: FakeStore
) -> None:
    store.outcomes["absent"].append(Failed("source_gone", "It is not there."))
    with pytest.raises(UnknownModel, match="Loading lora draft failed: No adapter found for absent"):
        await reconciler.manual_loads.load("draft", "absent", in_place=False)
    assert not any(reconciler.status.counts().values())


async def test_what_was_never_discovered_cannot_be_found_while_it_drains_either(
    reconciler: Reconciler, table: FakeTable
) -> None:
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    await reconciler.manual_loads.unload("draft")
    assert reconciler.status.snapshot()["draft"].state is WorkerState.DRAINING
    with pytest.raises(UnknownModel, match="'draft' cannot be found"):
        await reconciler.manual_loads.unload("draft")


async def test_a_name_the_server_has_already_is_not_loaded_by_hand(
    reconciler: Reconciler, table: FakeTable, engine: FakeEngine
) -> None:
    table.taken = {"draft"}
    with pytest.raises(Rejected, match="name_taken"):
        await reconciler.manual_loads.load("draft", "sql", in_place=True)
    assert engine.loads == []


async def test_what_is_discovered_is_neither_loaded_nor_unloaded_by_hand(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    with pytest.raises(Rejected, match="just ask for it"):
        await reconciler.manual_loads.load("sql", "sql", in_place=False)
    with pytest.raises(Rejected, match="remove its directory"):
        await reconciler.manual_loads.unload("sql")
    assert (await reconciler.resolve("sql")).revision == revision("a")


async def test_in_place_by_hand_overrides_what_is_discovered_until_it_is_unloaded(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    await reconciler.manual_loads.load("sql", "drafts/sql", in_place=True)
    reconciler.apply(wanted("sql", revision("b")))
    assert (await reconciler.resolve("sql")).revision == store.unnamed
    await reconciler.manual_loads.unload("sql")
    assert (await reconciler.resolve("sql")).revision == revision("b")


async def test_an_in_place_load_by_hand_that_goes_wrong_leaves_the_catalog_in_charge(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    store.outcomes["drafts/sql"].append(rejected())
    with pytest.raises(Rejected):
        await reconciler.manual_loads.load("sql", "drafts/sql", in_place=True)
    reconciler.apply(wanted("sql", revision("b")))
    await until_serves(reconciler, "sql", revision("b"))


async def test_in_place_by_hand_serves_the_new_bytes_and_lets_the_old_ones_go(
    reconciler: Reconciler, run: Run, store: FakeStore, engine: FakeEngine, no_grace: None
) -> None:
    run(0)
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    store.unnamed = Revision("f" * 64)
    await reconciler.manual_loads.load("draft", "sql", in_place=True)
    assert (await reconciler.resolve("draft")).revision == "f" * 64
    await wait_until(
        lambda: engine.held_revisions() == [("draft", "f" * 64)], timeout=5, description="the old one went"
    )


async def test_what_was_loaded_by_hand_outlives_a_catalog_that_does_not_know_it(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    run(0)
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    reconciler.replace(wanted("sql", revision("a")))
    reconciler.apply({"draft": None})
    assert (await reconciler.resolve("draft")).revision == store.unnamed


async def test_what_was_loaded_by_hand_comes_back_after_it_made_room_for_others(
    reconciler: Reconciler, store: FakeStore, table: FakeTable, no_grace: None
) -> None:
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    reconciler.replace(catalog_of("1", "2", "3", "4"))
    for digit in "1234":
        await reconciler.resolve(f"a{digit}")
    assert "draft" not in table.served
    assert (await reconciler.resolve("draft")).revision == store.unnamed


@pytest.fixture
async def abandoned(
    reconciler: Reconciler, run: Run, engine: FakeEngine, no_grace: None
) -> Callable[[str], Awaitable[None]]:
    """Load a directory by hand as `draft`, and go away while the engine loads it."""

    async def load_and_leave(path: str) -> None:
        run(0)
        engine.gate.clear()
        before = len(engine.loads)
        client = asyncio.create_task(reconciler.manual_loads.load("draft", path, in_place=True))
        await wait_until(lambda: len(engine.loads) > before, timeout=5, description="the engine loads")
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        engine.gate.set()

    return load_and_leave


async def test_a_client_that_goes_away_while_its_adapter_loads_leaves_nothing_behind(
    reconciler: Reconciler,
    engine: FakeEngine,
    store: FakeStore,
    table: FakeTable,
    abandoned: Callable[[str], Awaitable[None]],
) -> None:
    await abandoned("sql")
    assert store.pinned() == [store.unnamed], "its bytes are kept while the engine reads them"
    await until_forgotten(reconciler, "draft")
    assert [handle.name for handle in engine.unloads] == ["draft"]
    assert (engine.holds, store.pinned(), table.served) == ({}, [], {})


async def test_a_client_that_goes_away_while_its_load_fails_leaves_nothing_behind(
    reconciler: Reconciler,
    engine: FakeEngine,
    store: FakeStore,
    abandoned: Callable[[str], Awaitable[None]],
) -> None:
    engine.outcomes["draft"].append(rejected("engine_refused"))
    await abandoned("sql")
    await until_forgotten(reconciler, "draft")
    assert (engine.holds, store.pinned()) == ({}, [])


async def test_a_client_that_goes_away_changes_nothing_of_what_was_loaded_before(
    reconciler: Reconciler, engine: FakeEngine, store: FakeStore, abandoned: Callable[[str], Awaitable[None]]
) -> None:
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    first, store.unnamed = store.unnamed, Revision("f" * 64)
    await abandoned("sql")
    await wait_until(lambda: store.pinned() == [first], timeout=5, description="the new one went")
    assert engine.held_revisions() == [("draft", first)]
    assert (await reconciler.resolve("draft")).revision == first


async def test_a_client_that_goes_away_while_the_same_bytes_load_again_takes_nothing_from_its_name(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore, table: FakeTable, no_grace: None
) -> None:
    run(0)
    await reconciler.manual_loads.load("draft", "sql", in_place=False)
    store.gate.clear()
    client = asyncio.create_task(reconciler.manual_loads.load("draft", "sql", in_place=True))
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="its bytes are copied")
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    store.gate.set()
    await wait_until(
        lambda: not any(task.get_name() == "loradrop-manual-draft" for task in asyncio.all_tasks()),
        timeout=5,
        description="the load has ended",
    )
    visits = len(table.visits)
    await wait_until(lambda: len(table.visits) > visits + 2, timeout=5, description="what is unused has gone")
    assert (await reconciler.resolve("draft")).lora_id in engine.holds
    assert (engine.unloads, len(store.pinned())) == ([], 1)


async def test_a_load_by_hand_ends_with_the_reconciler(
    reconciler: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    engine.gate.clear()
    client = asyncio.create_task(reconciler.manual_loads.load("draft", "sql", in_place=False))
    await wait_until(lambda: bool(engine.loads), timeout=5, description="the engine loads")
    await reconciler.aclose()
    assert store.pinned() == [], "it has ended"
    with pytest.raises(asyncio.CancelledError):
        await client
