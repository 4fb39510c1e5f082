"""Drop a folder, get a model: `loradrop serve` alone, asked as people ask it."""

import asyncio
import subprocess
import sys
import threading

import httpx
import openai
import pytest
import torch

from tests.e2e.conftest import AllInOne
from tests.servers import free_port
from tests.tiny_model import tiny_adapter_tensors
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.e2e


def wait_listed(all_in_one: AllInOne, name: str, *, timeout: float = 5.0) -> float:
    """Return the seconds until `name` is in `/v1/models`."""
    models = all_in_one.server.models
    return wait_until_sync(lambda: name in models(), timeout=timeout, description=f"{name} is listed")


def wait_gone(all_in_one: AllInOne, name: str) -> None:
    models = all_in_one.server.models
    wait_until_sync(lambda: name not in models(), timeout=10, description=f"{name} is not listed")


def wait_answer(all_in_one: AllInOne, name: str, tokens: list[int]) -> None:
    wait_until_sync(
        lambda: all_in_one.server.ask(name).tokens == tokens, timeout=10, description=f"{name} has changed"
    )


def test_a_renamed_in_adapter_is_listed_and_answers_in_its_own_way(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("renamed", seed=1)
    wait_listed(all_in_one, "renamed")

    answer = all_in_one.server.ask("renamed")

    assert answer.status == httpx.codes.OK
    assert answer.body["model"] == "renamed"
    assert answer.tokens != all_in_one.server.ask("tiny").tokens


def test_a_copied_in_adapter_answers_like_the_same_one_renamed_in(all_in_one: AllInOne) -> None:
    all_in_one.prefix.copy_in("copied", seed=1)
    all_in_one.prefix.rename_in("moved", seed=1)
    wait_listed(all_in_one, "copied")
    wait_listed(all_in_one, "moved")

    assert all_in_one.server.ask("copied").tokens == all_in_one.server.ask("moved").tokens


def test_a_removed_adapter_is_gone_and_asking_for_it_is_a_404(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("removed", seed=1)
    wait_listed(all_in_one, "removed")
    assert all_in_one.server.ask("removed").status == httpx.codes.OK

    all_in_one.prefix.remove("removed")
    wait_gone(all_in_one, "removed")

    assert all_in_one.server.ask("removed").status == httpx.codes.NOT_FOUND


def test_overwriting_an_adapters_files_changes_its_answers_and_no_request_fails_meanwhile(
    all_in_one: AllInOne,
) -> None:
    all_in_one.prefix.rename_in("other", seed=2)
    target = all_in_one.prefix.rename_in("overwritten", seed=1)
    wait_listed(all_in_one, "overwritten")
    wait_listed(all_in_one, "other")
    before = all_in_one.server.ask("overwritten").tokens
    after = all_in_one.server.ask("other").tokens
    assert before != after

    seen: list[tuple[int, tuple[int, ...]]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answer = all_in_one.server.ask("overwritten")
            seen.append((answer.status, tuple(answer.tokens)))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    for file in (all_in_one.prefix.directory / "other").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    wait_answer(all_in_one, "overwritten", after)
    stop.set()
    asking.join()

    assert {status for status, _ in seen} == {httpx.codes.OK}
    assert {tokens for _, tokens in seen} <= {tuple(before), tuple(after)}


def test_putting_the_old_bytes_back_brings_the_old_answers_back(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("rolled", seed=3)
    wait_listed(all_in_one, "rolled")
    old = all_in_one.server.ask("rolled").tokens
    all_in_one.prefix.rename_in("rolled", seed=4)
    wait_until_sync(
        lambda: all_in_one.server.ask("rolled").tokens != old, timeout=10, description="the new answers"
    )

    all_in_one.prefix.rename_in("rolled", seed=3)

    wait_answer(all_in_one, "rolled", old)


def test_it_serves_chat_streams_tokenize_and_responses_to_the_openai_client(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("client", seed=5)
    wait_listed(all_in_one, "client")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{all_in_one.server.port}/v1", api_key="none")
    messages = [{"role": "user", "content": "hello world"}]

    assert "client" in {model.id for model in client.models.list()}
    whole = client.chat.completions.create(model="client", messages=messages, max_tokens=6, temperature=0)
    parts = list(
        client.chat.completions.create(
            model="client", messages=messages, max_tokens=6, temperature=0, stream=True
        )
    )
    tokenized = all_in_one.server.client.post("/tokenize", json={"model": "client", "prompt": "hello"})
    response = client.responses.create(model="client", input="hello", max_output_tokens=16)

    assert whole.model == "client"
    assert {part.model for part in parts} == {"client"}
    streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert streamed == whole.choices[0].message.content
    assert tokenized.json()["count"] > 0
    assert response.model == "client"
    client.close()


BAD = {
    "truncated": "weights",
    "empty": "",
    "random": "",
    "rank-too-high": "rank_too_high",
    "not-a-number": "weights_not_finite",
    "of-a-smaller-model": "shape_disagrees",
    "one-layer": "layers_missing",
}


def drop_bad_adapters(all_in_one: AllInOne) -> None:
    prefix, tensors = all_in_one.prefix, tiny_adapter_tensors(seed=9)
    truncated = prefix.copy_in("truncated", seed=9) / "adapter_model.safetensors"
    truncated.write_bytes(truncated.read_bytes()[:-64])
    (prefix.copy_in("empty", seed=9) / "adapter_model.safetensors").write_bytes(b"")
    (prefix.copy_in("random", seed=9) / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 16)
    prefix.rename_in("rank-too-high", seed=9, rank=16)
    nan = {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors.items()}
    prefix.rename_in("not-a-number", seed=9, tensors=nan)
    half = {
        name: (tensor[:, :64] if "lora_A" in name else tensor[:64]).clone()
        for name, tensor in tensors.items()
    }
    prefix.rename_in("of-a-smaller-model", seed=9, tensors=half)
    prefix.rename_in(
        "one-layer", seed=9, tensors={name: tensor for name, tensor in tensors.items() if "layers.0" in name}
    )


def reason_on_disk_or_worker(adapter: dict[str, object]) -> str:
    workers = adapter["workers"]
    assert isinstance(workers, dict)
    reasons = [adapter["reason"], *(worker["reason"] for worker in workers.values())]
    return " ".join(str(reason["code"]) for reason in reasons if isinstance(reason, dict))


def test_bad_adapters_beside_good_ones_show_their_reason_and_the_engine_lives(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("good", seed=1)
    wait_listed(all_in_one, "good")
    references = {name: all_in_one.server.ask(name, max_tokens=32).tokens for name in ("tiny", "good")}
    drop_bad_adapters(all_in_one)
    all_in_one.server.client.post("/v1/refresh_lora_discovery", json={"timeout": 30})

    answers = {name: all_in_one.server.ask(name) for name in BAD}

    def reasons() -> dict[str, str]:
        listed = httpx.get(f"{all_in_one.api_url}/v1/lora_adapters").json()["data"]
        return {adapter["id"]: reason_on_disk_or_worker(adapter) for adapter in listed}

    wait_until_sync(
        lambda: all(reasons().get(name) for name in BAD), timeout=10, description="every reason is reported"
    )
    for name, code in BAD.items():
        assert answers[name].status in {400, 503}, (name, answers[name])
        assert answers[name].error, name
        assert code in reasons()[name], (name, reasons()[name])
        assert f"name={name} " in all_in_one.server.log, name
    for name, tokens in references.items():
        assert all_in_one.server.ask(name, max_tokens=32).tokens == tokens

    shown = subprocess.run(
        [sys.executable, "-m", "loradrop.cli", "ls", "--json", "--api-url", all_in_one.api_url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(f'"{name}"' in shown for name in BAD)


@pytest.mark.parametrize("port", ["worker", "api"])
def test_a_refresh_on_either_port_answers_in_the_agreed_words(all_in_one: AllInOne, port: str) -> None:
    url = f"http://127.0.0.1:{all_in_one.server.port}" if port == "worker" else all_in_one.api_url
    all_in_one.prefix.copy_in(f"refreshed-{port}", seed=6)

    body = httpx.post(f"{url}/v1/refresh_lora_discovery", json={}, timeout=60).json()

    total = body["total_adapters"]
    new = len(body["discovered_adapters"])
    assert body["message"] == (
        f"Successfully refreshed LoRA discovery. Found {total} total adapters, {new} newly discovered."
    )
    assert body["status"] == "converged"
    assert body["workers"] == {"total": 1, "converged": 1, "pending": []}
    assert f"refreshed-{port}" in all_in_one.server.models()


def test_ten_requests_at_once_for_a_new_adapter_load_it_once(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("crowd", seed=8)
    wait_listed(all_in_one, "crowd")

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=all_in_one.server.client.base_url, timeout=60) as client:
            body = {"model": "crowd", "prompt": "hello", "max_tokens": 4}
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for _ in range(10)))

    answers = asyncio.run(ask_all())

    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    loaded = [line for line in all_in_one.server.log.splitlines() if "adapter loaded name=crowd" in line]
    assert len(loaded) == 1


def test_an_unknown_model_is_a_404_and_vllms_load_route_is_not_there(all_in_one: AllInOne) -> None:
    assert all_in_one.server.ask("nobody").status == httpx.codes.NOT_FOUND
    load = {"lora_name": "x", "lora_path": str(all_in_one.prefix.directory)}
    assert all_in_one.server.client.post("/v1/load_lora_adapter", json=load).status_code == 404


def test_a_second_server_on_the_same_prefix_and_state_is_refused_with_a_sentence(
    all_in_one: AllInOne,
) -> None:
    from loradrop.worker.fleet.embedded import embedded_stack
    from loradrop.worker.settings import SettingsError, WorkerSettings

    state = all_in_one.server.log_path.parent / "state" / "loradrop"
    prefix = all_in_one.prefix.directory
    settings = WorkerSettings(lora_dir_prefix=prefix, lora_state_dir=state, api_port=free_port())

    async def start() -> None:
        async with embedded_stack(settings):
            raise AssertionError("it started")

    with pytest.raises(SettingsError, match="--redis-url"):
        asyncio.run(start())
