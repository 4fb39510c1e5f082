"""What vLLM's port has of ours beside the routes of both ports: `GET /v1/models`, and vLLM's error bodies.

`GET /v1/models` takes the place of vLLM's: base models and every adapter that can be served, loaded or
not, without a word to the engine. vLLM has no `GET /v1/models/NAME`, which OpenAI's clients ask for.
"""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from loradrop.catalog.errors import LoradropError, PrefixNotConfigured
from loradrop.catalog.http.statuses import headers_of, status_of
from loradrop.worker.outcomes import NotServedYet

if TYPE_CHECKING:
    from loradrop.worker.worker import Worker

models_router = APIRouter()


@models_router.get("/v1/models")
async def show_available_models(request: Request) -> Response:
    """List the base models and every adapter that can be served, in OpenAI's shape."""
    worker = _worker(request)
    stock = [msgspec.json.encode(card) for card in await worker.table.stock_cards()]
    cards = b",".join([*stock, *worker.cards.of(worker.reconciler.listed())])
    return Response(b'{"object":"list","data":[%b]}' % cards, media_type="application/json")


@models_router.get("/v1/models/{name:path}")
async def show_model(name: str, request: Request) -> Response:
    """Show one of them, or say that there is none of this name."""
    if not name:  # the list, asked for with a slash behind it
        return await show_available_models(request)
    worker = _worker(request)
    stock = await worker.table.stock_cards()
    ours = (worker.cards.card(adapter) for adapter in worker.reconciler.listed() if adapter.name == name)
    card = next((card for card in stock if card["id"] == name), None) or next(ours, None)
    if card is None:
        return _error(HTTPStatus.NOT_FOUND, f"The model `{name}` does not exist.", "NotFoundError")
    return JSONResponse(card)


def refusal(error: LoradropError) -> Response:
    """Return the answer that stands for `error`."""
    answer = status_of(error)
    return _error(answer.status, error.message, error.code, headers_of(error, answer))


async def answer_error(_request: Request, error: Exception) -> Response:
    """Answer a request that ended with an error of ours."""
    assert isinstance(error, LoradropError)  # registered for nothing else
    return refusal(error)


async def answer_early(_request: Request, error: Exception) -> Response:
    """Answer a request whose adapter left the engine before the request had started."""
    assert isinstance(error, NotServedYet)  # registered for nothing else
    return _error(error.status, str(error.reason), error.kind, error.headers)


def _worker(request: Request) -> "Worker":
    worker: Worker | None = getattr(request.app.state, "loradrop", None)
    if worker is None:
        raise PrefixNotConfigured
    return worker


def _error(status: HTTPStatus, message: str, kind: str, headers: Any = None) -> Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status.value}}
    return JSONResponse(body, status, headers)
