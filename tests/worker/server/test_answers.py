"""What a request that came too early is answered, by vLLM's own routes and its own check of the model."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

from loradrop.worker.engine.early_requests import note_early
from loradrop.worker.engine.handle import Handle
from loradrop.worker.engine.model_table import request_of
from loradrop.worker.outcomes import Failed, NotServedYet, Rejected, UnknownModel
from loradrop.worker.server.answers import AnswerMiddleware
from tests.catalog.values import TRUNCATED, revision
from tests.worker.model_routes import GENERATING, POOLING, SCALE_OUT, naming
from tests.worker.vllm_app import VARIABLES, BaseServing, PoolingBaseServing, vllm_app
from tests.worker.vllm_parts import FakeClient, ModelTable, serving_models

EARLY = NotServedYet(TRUNCATED, retry_after_seconds=9)
LEFT = Handle.of("sql", revision("a"), Path("/store/a"), attempt=0)
UNREAD = NotServedYet(TRUNCATED, retry_after_seconds=9, of_worker=True)


class _Generating(BaseServing):
    """Stands for vLLM's handlers of generation: each begins with this check, and returns what it says."""

    async def check(self, request: Any, _raw: Any) -> Any:
        return await self._check_model(request)

    create_batch_chat_completion = create_chat_completion = create_completion = create_responses = check
    create_messages = count_tokens = create_tokenize = create_detokenize = serve_tokens = check

    async def create_transcription(self, _audio: bytes, request: Any, raw: Any) -> Any:
        return await self.check(request, raw)


class _Pooling(BaseServing):
    """Stands for vLLM's handlers of pooling: each begins with this check, and raises what it says."""

    async def __call__(self, request: Any, _raw: Any) -> Any:
        await PoolingBaseServing._check_model(self, request)  # type: ignore[arg-type]  # all it asks of itself


class _Resolver:
    """Answers for every name with the error it is given."""

    def __init__(self) -> None:
        self.error: Exception = EARLY

    async def resolve(self, _name: str) -> Any:
        raise self.error

    async def by_hand(self, *_args: Any, **_named: Any) -> str:
        raise self.error


@pytest.fixture
def resolver() -> _Resolver:
    return _Resolver()


@pytest.fixture
def vllm(resolver: _Resolver, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    app = vllm_app("--lora-dir-prefix", "/loras")
    models = serving_models(FakeClient())
    ModelTable(models).install(
        resolve=resolver.resolve,
        load=resolver.by_hand,
        unload=resolver.by_hand,
        is_there=lambda _name: True,
        is_loaded=lambda _id: False,
    )
    app.state.openai_serving_models = models
    generating = _Generating(models, models.model_config)
    for handler in ("chat", "chat_batch", "completion", "responses", "transcription"):
        setattr(app.state, f"openai_serving_{handler}", generating)
    for handler in ("anthropic_serving_messages", "serving_tokenization", "serving_tokens"):
        setattr(app.state, handler, generating)
    pooling = _Pooling(models, models.model_config)
    for handler in ("embedding", "pooling", "scores", "classification"):
        setattr(app.state, f"serving_{handler}", pooling)
    app.state.enable_server_load_tracking = False
    app.post("/starts-late")(partial(_start_request, models.engine_client))
    return app


async def _start_request(client: FakeClient) -> None:
    """Stand for a route that starts a request for what has left the engine since it was checked."""
    await client.add_request("1", "prompt", None, lora_request=request_of(LEFT))


@pytest.fixture
async def client(vllm: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(vllm), base_url="http://vllm") as client:
        yield client


ROUTES = sorted((POOLING | SCALE_OUT | GENERATING).items())
HELD = [
    (path, body) for path, body in ROUTES if not path.endswith("/render") and path != "/generative_scoring"
]
BY_HAND = (
    ("POST", "/v1/load_lora_adapter", {"lora_name": "sql", "lora_path": "sql"}),
    ("POST", "/v1/unload_lora_adapter", {"lora_name": "sql"}),
    ("POST", "/adapters", {"name": "sql", "src": "sql"}),
    ("DELETE", "/adapters/sql", None),
)


async def test_every_route_says_409_why_and_when_to_ask_again(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    for path, body in HELD:
        answer = await client.post(path, json={"model": "sql", **body}, headers=naming("sql"))
        error = answer.json()["error"]
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "9"), path
        assert (error["message"], error["type"]) == (str(TRUNCATED), "ConflictError"), path
        assert error.get("code", 409) == 409, path
    assert "Traceback" not in caplog.text


async def test_an_adapter_that_left_the_engine_meanwhile_is_answered_alike(client: httpx.AsyncClient) -> None:
    answer = await client.post("/starts-late")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1"), answer.text
    assert answer.json()["error"]["message"].startswith("unloaded: ")


async def test_a_transcription_is_answered_alike(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/audio/transcriptions", data={"model": "sql"}, files={"file": ("a.wav", b"RIFF")}
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "9"), answer.text


async def test_an_answer_keeps_the_shape_of_its_route(client: httpx.AsyncClient) -> None:
    chat = await client.post("/v1/completions", json={"model": "sql", "prompt": "x"})
    assert set(chat.json()["error"]) == {"message", "type", "param", "code"}
    messages = await client.post("/v1/messages", json={"model": "sql", **GENERATING["/v1/messages"]})
    assert messages.json()["type"] == "error"
    assert set(messages.json()["error"]) == {"message", "type"}


async def test_what_is_true_of_the_whole_worker_is_a_503(
    client: httpx.AsyncClient, resolver: _Resolver
) -> None:
    resolver.error = UNREAD
    for path in ("/v1/completions", "/v1/messages", "/v1/embeddings"):
        answer = await client.post(path, json={"model": "sql", **dict(ROUTES)[path]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "9"), path
        assert answer.json()["error"]["type"] == "ServiceUnavailableError", path


async def test_a_rejected_adapter_stays_a_400(client: httpx.AsyncClient, resolver: _Resolver) -> None:
    resolver.error = Rejected("weights_not_finite", "It holds NaN.")
    for path in ("/v1/completions", "/v1/messages", "/v1/embeddings"):
        answer = await client.post(path, json={"model": "sql", **dict(ROUTES)[path]})
        assert (answer.status_code, answer.headers.get("retry-after")) == (400, None), path
        assert answer.json()["error"]["message"] == "sql: weights_not_finite: It holds NaN.", path


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionError("Outside."), 403),
        (Rejected("a", "Bad."), 400),
        (UnknownModel("Gone."), 404),
        (Failed("disk_full", "Full."), 409),
    ],
    ids=["outside", "rejected", "absent", "failed"],
)
async def test_sagemakers_routes_load_and_unload_by_the_rules_of_vllms_own(
    client: httpx.AsyncClient, resolver: _Resolver, error: Exception, status: int
) -> None:
    resolver.error = error
    for method, path, body in BY_HAND:
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, "retry-after" in answer.headers) == (status, status == 409), path


async def test_other_shapes_and_other_answers_are_left_as_they_are() -> None:
    app = FastAPI()
    app.add_middleware(AnswerMiddleware)

    @app.get("/cohere")
    async def cohere() -> JSONResponse:
        note_early(EARLY)
        return JSONResponse({"message": "cut", "id": "7"}, 400)

    @app.get("/served")
    async def served() -> str:
        note_early(EARLY)
        return "a completion"

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(418, "teapot")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vllm") as client:
        early = await client.get("/cohere")
        assert (early.status_code, early.json()) == (409, {"message": str(TRUNCATED), "id": "7"})
        assert (await client.get("/served")).json() == "a completion"
        assert (await client.get("/refused")).status_code == 418
