"""What vLLM's port has of ours beside the routes of both ports: `GET /v1/models`, and vLLM's error bodies.

`GET /v1/models` takes the place of vLLM's: base models and every adapter that can be served, loaded or
not, without a word to the engine.
"""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from loradrop.catalog.errors import LoradropError, PrefixNotConfigured
from loradrop.catalog.http.api_keys import Scope
from loradrop.catalog.http.auth import REFRESH_PATH
from loradrop.catalog.http.statuses import headers_of, status_of
from loradrop.worker.outcomes import NotServedYet

if TYPE_CHECKING:
    from loradrop.worker.worker import Worker

models_router = APIRouter()

_CHANGING = frozenset({REFRESH_PATH, "/v1/load_lora_adapter", "/v1/unload_lora_adapter"})


@models_router.get("/v1/models")
async def show_available_models(request: Request) -> Response:
    """List the base models and every adapter that can be served, in OpenAI's shape."""
    worker = _worker(request)
    stock = [msgspec.json.encode(card) for card in await worker.table.stock_cards()]
    cards = b",".join([*stock, *worker.cards.of(worker.reconciler.listed())])
    return Response(b'{"object":"list","data":[%b]}' % cards, media_type="application/json")


def needed_scope(method: str, path: str) -> Scope:
    """Return what a key must be good for: to change what is served, an admin's; to infer, any."""
    return Scope.ADMIN if method == "POST" and path in _CHANGING else Scope.READ


def refusal(error: LoradropError) -> Response:
    """Return the answer that stands for `error`."""
    answer = status_of(error)
    return _error(answer.status, error.message, error.code, headers_of(error, answer))


async def answer_error(_request: Request, error: Exception) -> Response:
    """Answer a request that ended with an error of ours."""
    assert isinstance(error, LoradropError)  # registered for nothing else
    return refusal(error)


async def not_served_yet(_request: Request, error: Exception) -> Response:
    """Answer a request that came too early: 503, why, and when to ask again."""
    assert isinstance(error, NotServedYet)  # registered for nothing else
    return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error.reason), "ServiceUnavailableError", error.headers)


def _worker(request: Request) -> "Worker":
    worker: Worker | None = getattr(request.app.state, "loradrop", None)
    if worker is None:
        raise PrefixNotConfigured
    return worker


def _error(status: HTTPStatus, message: str, kind: str, headers: Any = None) -> Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status.value}}
    return JSONResponse(body, status, headers)
