"""What clients ask a server for: chats, streams, refreshes, many requests at once, unknown names."""

import asyncio

import httpx
import openai
import pytest

from tests.e2e.conftest import AllInOne
from tests.worker.model_routes import GENERATING, naming

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


def test_every_route_says_409_for_an_adapter_that_is_incomplete_and_serves_it_once_it_is_whole(
    all_in_one: AllInOne,
) -> None:
    all_in_one.prefix.drop_half("half", seed=7)
    reason, post = all_in_one.reason("half"), all_in_one.server.client.post

    for path, body in GENERATING.items():
        answer = post(path, json={"model": "half", **body}, headers=naming("half"))
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (409, "ConflictError"), (path, answer.text)
        assert "retry-after" in answer.headers, path
        assert error["message"] == reason, path
    assert "Error in create_messages" not in all_in_one.server.log
    assert all_in_one.server.ask("tiny").status == httpx.codes.OK

    all_in_one.prefix.complete("half")
    all_in_one.wait_listed("half")
    for path, body in GENERATING.items():
        answer = post(path, json={"model": "half", **body}, headers=naming("half"))
        assert answer.status_code not in {404, 409, 503}, (path, answer.text)


def test_the_openai_client_retrieves_a_model_and_tries_again_what_is_not_served_yet(
    all_in_one: AllInOne,
) -> None:
    all_in_one.prefix.rename_in("retrieved", seed=5)
    all_in_one.wait_listed("retrieved")
    all_in_one.prefix.drop_half("coming", seed=6)
    all_in_one.reason("coming")
    tried: list[int] = []

    def complete(response: httpx.Response) -> None:
        tried.append(response.status_code)
        if response.status_code == httpx.codes.CONFLICT:
            all_in_one.prefix.complete("coming")
            all_in_one.wait_listed("coming")

    http = openai.DefaultHttpxClient(event_hooks={"response": [complete]})
    base_url = f"http://127.0.0.1:{all_in_one.server.port}/v1"
    with openai.OpenAI(base_url=base_url, api_key="none", http_client=http) as client:
        assert client.models.retrieve("retrieved").root == "retrieved"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("absent")
        tried.clear()
        assert client.completions.create(model="coming", prompt="hello", max_tokens=2).model == "coming"
    assert tried == [409, 200]


def test_an_unknown_model_is_a_404_and_vllms_load_route_is_not_there(all_in_one: AllInOne) -> None:
    assert all_in_one.server.ask("unknown").status == httpx.codes.NOT_FOUND
    load = {"lora_name": "x", "lora_path": str(all_in_one.prefix.directory)}
    assert all_in_one.server.client.post("/v1/load_lora_adapter", json=load).status_code == 404
