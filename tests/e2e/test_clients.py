"""What clients ask a server for: chats, streams, refreshes, many requests at once, unknown names."""

import asyncio

import httpx
import openai
import pytest

from tests.e2e.conftest import AllInOne

pytestmark = pytest.mark.e2e


def test_it_serves_chat_streams_tokenize_and_responses_to_the_openai_client(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("client", seed=5)
    all_in_one.wait_listed("client")
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
    all_in_one.wait_listed("crowd")

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=all_in_one.server.client.base_url, timeout=60) as client:
            body = {"model": "crowd", "prompt": "hello", "max_tokens": 4}
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for _ in range(10)))

    answers = asyncio.run(ask_all())

    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    loaded = [line for line in all_in_one.server.log.splitlines() if "adapter loaded name=crowd" in line]
    assert len(loaded) == 1


def test_an_unknown_model_is_a_404_and_vllms_load_route_is_not_there(all_in_one: AllInOne) -> None:
    assert all_in_one.server.ask("unknown").status == httpx.codes.NOT_FOUND
    load = {"lora_name": "x", "lora_path": str(all_in_one.prefix.directory)}
    assert all_in_one.server.client.post("/v1/load_lora_adapter", json=load).status_code == 404
