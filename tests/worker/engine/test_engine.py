"""The way into the engine: loads that leave nothing behind when they fail, and a contract that is checked."""

from pathlib import Path

import pytest
import torch

from loradrop.worker.engine.engine import Engine, require_vllm_contract
from loradrop.worker.engine.handle import Handle
from loradrop.worker.engine.model_table import request_of
from loradrop.worker.engine.shared_ids import SharedIds
from loradrop.worker.outcomes import Failed, Rejected
from tests.catalog.values import revision
from tests.worker.vllm_parts import FakeClient

HANDLE = Handle.of("sql", revision("a"), Path("/store/a"), attempt=0)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def engine(client: FakeClient) -> Engine:
    return Engine(client, static_count=0)


async def test_a_load_hands_over_id_path_and_a_name_of_its_own_and_never_loads_in_place(
    engine: Engine, client: FakeClient
) -> None:
    await engine.load(HANDLE)
    request = client.loaded[HANDLE.lora_id]
    assert (request.lora_name, request.lora_path) == (HANDLE.inner_name, "/store/a")
    assert not request.load_inplace
    await engine.unload(HANDLE)
    assert client.loaded == {}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Call to add_lora method failed: Worker failed with error 'CUDA out of memory'"),
        OSError("No space left on device"),
        OSError("Too many open files"),
        TimeoutError("RPC timed out"),
        type("EngineDeadError", (Exception,), {})("EngineCore encountered an issue"),
        type("OutOfMemoryError", (Exception,), {})(),
    ],
    ids=str,
)
async def test_what_the_adapter_is_not_to_blame_for_is_tried_again_and_cleaned_up(
    engine: Engine, client: FakeClient, error: Exception
) -> None:
    client.refusals.append(error)
    with pytest.raises(Failed, match="engine_failed"):
        await engine.load(HANDLE)
    assert client.removed == [HANDLE.lora_id]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Call to add_lora method failed: Worker failed with error 'LoRA rank 16 is greater'"),
        ValueError("is unsupported LoRA weight"),
        StopIteration(),
    ],
    ids=repr,
)
async def test_what_the_engine_refuses_is_rejected_with_its_words_and_cleaned_up(
    engine: Engine, client: FakeClient, error: Exception
) -> None:
    client.refusals.append(error)
    with pytest.raises(Rejected) as caught:
        await engine.load(HANDLE)
    assert caught.value.reason.code == "engine_refused"
    assert "Call to" not in caught.value.reason.message
    assert client.removed == [HANDLE.lora_id]


async def test_a_refusal_without_a_word_is_a_refusal(engine: Engine, client: FakeClient) -> None:
    client.refusals.append(False)
    with pytest.raises(Rejected, match="without a reason"):
        await engine.load(HANDLE)
    assert client.removed == [HANDLE.lora_id]


async def test_a_clean_up_that_fails_does_not_hide_why_the_load_did(
    engine: Engine, client: FakeClient
) -> None:
    client.refusals.append(ValueError("bad shapes"))
    client.remove_error = RuntimeError("busy")
    with pytest.raises(Rejected, match="bad shapes"):
        await engine.load(HANDLE)


def test_ids_in_use_are_those_of_requests_waiting_or_running(engine: Engine, client: FakeClient) -> None:
    assert engine.is_idle()
    client.start_request("base", None)
    client.start_request("adapter", request_of(HANDLE))
    assert engine.ids_in_use() == {HANDLE.lora_id}
    assert not engine.is_idle()


def test_limits_and_places_are_the_servers(client: FakeClient) -> None:
    engine = Engine(client, static_count=3)
    assert (engine.limits.max_lora_rank, engine.capacity, engine.max_loras) == (8, 5, 2)
    assert engine.limits.largest_value == torch.finfo(torch.bfloat16).max
    assert Engine(client, static_count=99).capacity == 1
    client.vllm_config.parallel_config._api_process_count = 2
    shared = Engine(client, static_count=3, ids=SharedIds(None))
    assert shared.capacity == 2, "API processes share the places"
    assert engine.process_rank == 0
    client.vllm_config.parallel_config._api_process_rank = -1
    assert engine.process_rank == 0
    assert not engine.renames_modules
    assert engine.vllm_version.count(".") >= 2


def test_nan_is_counted_where_vllm_was_asked_to(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not engine.counts_nans
    monkeypatch.setenv("VLLM_COMPUTE_NANS_IN_LOGITS", "1")
    assert engine.counts_nans


def test_a_checkpoint_on_this_machine_is_found(
    client: FakeClient, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.model_config.model = str(tmp_path)
    assert engine.checkpoint_directory() == tmp_path
    for unknown in ("no-owner/has-this-model", "s3://bucket/some/model"):
        client.model_config.model = unknown
        assert engine.checkpoint_directory() is None


def test_a_checkpoint_in_the_hubs_cache_is_found(
    client: FakeClient, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    client.model_config.model = "org/tiny"
    assert engine.checkpoint_directory() == snapshot


def test_this_vllm_has_what_we_rely_on(client: FakeClient) -> None:
    require_vllm_contract(client)


def test_a_vllm_that_differs_is_refused_with_what_it_lacks(client: FakeClient, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"vLLM .* lacks .*AsyncLLM.*README"):
        require_vllm_contract(client, packages=tmp_path)


def test_a_server_without_lora_is_told_how_to_start(client: FakeClient) -> None:
    client.vllm_config.lora_config = None
    with pytest.raises(RuntimeError, match="--enable-lora"):
        require_vllm_contract(client)
