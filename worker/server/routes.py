"""Our routes on vLLM's port, with vLLM's error bodies.

`GET /v1/models` takes the place of vLLM's: base models and every adapter that can be served, loaded or
not, without a word to the engine. The others are those of the API that people want on this port too.
"""

from collections.abc import Awaitable
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from loradrop.catalog.errors import (
    AdminKeyNeeded,
    CatalogDenied,
    CatalogRefused,
    KeyNeeded,
    LoradropError,
    PrefixNotConfigured,
    RequestTooLarge,
    TooManyRefreshes,
    UnknownAdapter,
    UnknownRefresh,
)
from loradrop.catalog.http.api_keys import Scope
from loradrop.catalog.http.auth import REFRESH_PATH, caller_of
from loradrop.catalog.http.refresh_views import RefreshBody
from loradrop.worker.outcomes import NotServedYet

if TYPE_CHECKING:
    from loradrop.worker.worker import Worker

models_router = APIRouter()
discovery_router = APIRouter()

_CHANGING = frozenset({REFRESH_PATH, "/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
_STATUS = {
    KeyNeeded: HTTPStatus.UNAUTHORIZED,
    AdminKeyNeeded: HTTPStatus.FORBIDDEN,
    RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooManyRefreshes: HTTPStatus.TOO_MANY_REQUESTS,
    PrefixNotConfigured: HTTPStatus.BAD_REQUEST,
    UnknownAdapter: HTTPStatus.NOT_FOUND,
    UnknownRefresh: HTTPStatus.NOT_FOUND,
    CatalogDenied: HTTPStatus.BAD_GATEWAY,
    CatalogRefused: HTTPStatus.BAD_GATEWAY,
}
_RETRY_AFTER = {"Retry-After": "2"}


@models_router.get("/v1/models")
async def show_available_models(request: Request) -> Response:
    """List the base models and every adapter that can be served, in OpenAI's shape."""
    worker = _worker(request)
    stock = [msgspec.json.encode(card) for card in await worker.table.stock_cards()]
    cards = b",".join([*stock, *worker.cards.of(worker.reconciler.listed())])
    return Response(b'{"object":"list","data":[%b]}' % cards, media_type="application/json")


@discovery_router.post(REFRESH_PATH)
async def refresh_lora_discovery(
    request: Request, body: RefreshBody | None = None, prefer: Annotated[str | None, Header()] = None
) -> Response:
    """Look at the prefix now, and wait until every worker has observed what was found."""
    return await _answer(_refresh(request, body or RefreshBody(), wait=prefer != "respond-async"))


@discovery_router.get(REFRESH_PATH + "/{refresh_id}")
async def show_refresh(request: Request, refresh_id: str) -> Response:
    """Return how far a refresh has come."""

    async def answer() -> Response:
        view = await _worker(request).queries.refresh(refresh_id)
        return JSONResponse(view.model_dump(mode="json"))

    return await _answer(answer())


@discovery_router.get("/v1/lora_adapters")
async def list_lora_adapters(request: Request) -> Response:
    """List the catalog, with the state of each adapter on every worker."""

    async def answer() -> Response:
        chunks = await _worker(request).queries.adapters()
        return StreamingResponse(chunks, media_type="application/json")

    return await _answer(answer())


@discovery_router.get("/v1/lora_adapters/{name}")
async def show_lora_adapter(request: Request, name: str) -> Response:
    """Return one adapter, with its state on every worker."""

    async def answer() -> Response:
        view = await _worker(request).queries.adapter(name)
        return JSONResponse(view.model_dump(mode="json"))

    return await _answer(answer())


def needed_scope(method: str, path: str) -> Scope:
    """Return what a key must be good for: to change what is served, an admin's; to infer, any."""
    return Scope.ADMIN if method == "POST" and path in _CHANGING else Scope.READ


def refusal(error: LoradropError) -> Response:
    """Return the answer that stands for `error`."""
    status = _STATUS.get(type(error), HTTPStatus.SERVICE_UNAVAILABLE)
    headers = _RETRY_AFTER if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    if isinstance(error, TooManyRefreshes):
        headers = {"Retry-After": str(error.retry_after_seconds)}
    return _error(status, str(error), error.code, headers)


async def not_served_yet(_request: Request, error: Exception) -> Response:
    """Answer a request that came too early: 503, why, and when to ask again."""
    assert isinstance(error, NotServedYet)  # registered for nothing else
    return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error.reason), "ServiceUnavailableError", error.headers)


async def _refresh(request: Request, body: RefreshBody, *, wait: bool) -> Response:
    worker = _worker(request)
    refresh_id = await worker.queries.start_refresh(body, asked_by=caller_of(request.scope))
    if wait:
        view = await worker.queries.finished_refresh(refresh_id, timeout_seconds=body.timeout)
        return JSONResponse(view.model_dump(mode="json"))
    view = await worker.queries.refresh(refresh_id)
    location = {"Location": f"{REFRESH_PATH}/{refresh_id}"}
    return JSONResponse(view.model_dump(mode="json"), HTTPStatus.ACCEPTED, location)


def _worker(request: Request) -> "Worker":
    worker: Worker | None = getattr(request.app.state, "loradrop", None)
    if worker is None:
        raise PrefixNotConfigured
    return worker


async def _answer(work: Awaitable[Response]) -> Response:
    try:
        return await work
    except LoradropError as error:
        return refusal(error)


def _error(status: HTTPStatus, message: str, kind: str, headers: Any = None) -> Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status.value}}
    return JSONResponse(body, status, headers)
