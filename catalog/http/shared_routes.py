"""The routes that both ports serve: refreshes, and the catalog with its state on every worker.

A port includes `router`, puts a Backend into its application's state, and answers LoradropError in its own
shape. A route names the statuses of its errors; the API's document says what their bodies look like.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from loradrop.catalog.errors import DiscoveryError, PrefixNotConfigured
from loradrop.catalog.http.auth import REFRESH_PATH, caller_of
from loradrop.catalog.http.deadlines import in_time, unless_stopping
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import RefreshBody, RefreshView
from loradrop.catalog.http.views import AdapterView, Listed
from loradrop.catalog.status import RefreshStatus

router = APIRouter(tags=["catalog"])

_RESPOND_ASYNC = "respond-async"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What the routes stand on. `count_refresh` is told the status that each refresh is answered with."""

    queries: Queries
    redis_seconds: float = 5.0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    count_refresh: Callable[[RefreshStatus], None] = lambda _status: None


def put_backend(state: Any, backend: Backend) -> None:
    """Make the routes of the application with `state` stand on `backend`."""
    state.loradrop_backend = backend


async def _backend_of(request: Request) -> Backend:
    """Return what `request` is answered from; raises PrefixNotConfigured where the server has no catalog."""
    backend: Backend | None = getattr(request.app.state, "loradrop_backend", None)
    if backend is None:
        raise PrefixNotConfigured
    return backend


_Answering = Annotated[Backend, Depends(_backend_of)]


def errors(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors that not every route has."""
    return {int(status): {"description": status.phrase} for status in statuses}


@router.post(
    REFRESH_PATH,
    summary="Look at the disk now",
    response_model=RefreshView,
    responses=errors(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
    )
    | {202: {"model": RefreshView, "description": "Asked for; `Location` tells how it goes"}},
)
async def refresh(
    request: Request,
    backend: _Answering,
    body: RefreshBody | None = None,
    prefer: Annotated[str, Header(description="`respond-async`: do not wait for the outcome")] = "",
) -> Response:
    """Ask the watcher for a look at the disk, then wait until every worker has observed what it found.

    The body may be missing or `{}`. `status` says how it went: `converged`; `partial` where the time was
    up before some workers had observed it (`workers.pending` names them); `timeout` where the watcher
    had not answered by then. With `Prefer: respond-async` the answer is a 202 at once.
    """
    body = body or RefreshBody()
    async with in_time(backend.redis_seconds):
        refresh_id = await backend.queries.start_refresh(body, asked_by=caller_of(request.scope))
    if _RESPOND_ASYNC in _preferences(prefer):
        async with in_time(backend.redis_seconds):
            view = await backend.queries.refresh(refresh_id)
        backend.count_refresh(view.status)
        headers = {"Location": f"{REFRESH_PATH}/{refresh_id}", "Preference-Applied": _RESPOND_ASYNC}
        return JSONResponse(view.model_dump(mode="json"), HTTPStatus.ACCEPTED, headers)
    try:
        async with in_time(body.timeout + backend.redis_seconds):
            view = await unless_stopping(
                backend.stopping, backend.queries.finished_refresh(refresh_id, timeout_seconds=body.timeout)
            )
    except DiscoveryError:
        backend.count_refresh(RefreshStatus.FAILED)
        raise
    backend.count_refresh(view.status)
    return JSONResponse(view.model_dump(mode="json"))


@router.get(
    REFRESH_PATH + "/{refresh_id}", summary="How a refresh goes", responses=errors(HTTPStatus.NOT_FOUND)
)
async def refresh_as_it_stands(
    backend: _Answering, refresh_id: Annotated[str, Path(examples=["0f3c1d2e4b5a6978"])]
) -> RefreshView:
    """Return a refresh as it stands. Results are kept for an hour."""
    async with in_time(backend.redis_seconds):
        return await backend.queries.refresh(refresh_id)


@router.get("/v1/lora_adapters", summary="Every adapter, on every worker", response_model=Listed[AdapterView])
async def lora_adapters(backend: _Answering) -> Response:
    """Return the catalog by name: what should be served, what the disk says, what each worker has."""
    async with in_time(backend.redis_seconds):
        chunks = await backend.queries.adapters()
    return StreamingResponse(chunks, media_type="application/json")


@router.get(
    "/v1/lora_adapters/{name}", summary="One adapter, on every worker", responses=errors(HTTPStatus.NOT_FOUND)
)
async def lora_adapter(
    backend: _Answering, name: Annotated[str, Path(examples=["sql_adapter"])]
) -> AdapterView:
    """Return one adapter."""
    async with in_time(backend.redis_seconds):
        return await backend.queries.adapter(name)


def _preferences(header: str) -> set[str]:
    """Return the names of what a `Prefer` header asks for (RFC 7240), without values and parameters."""
    return {part.partition(";")[0].partition("=")[0].strip().lower() for part in header.split(",")}
