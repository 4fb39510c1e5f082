"""The routes of the API. What they answer is `catalog.queries`; how errors look is `problems`."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse

from loradrop.api.events import EventFeed
from loradrop.api.health import readiness
from loradrop.api.metrics import Metrics, take_snapshot
from loradrop.api.problems import RETRY_AFTER_SECONDS, answers, in_time, unless_stopping
from loradrop.api.schemas import Liveness, Readiness
from loradrop.api.settings import Settings
from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.http.auth import REFRESH_PATH, caller_of
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import AskedRefresh, RefreshBody, RefreshView
from loradrop.catalog.http.views import AdapterView, Listed, WorkerView
from loradrop.catalog.store import Connection, Reports

v1 = APIRouter(tags=["catalog"])
service = APIRouter(tags=["service"])


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes stand on."""

    settings: Settings
    connection: Connection
    queries: Queries
    reports: Reports
    feed: EventFeed
    metrics: Metrics
    stopping: asyncio.Event
    """Set when the process is asked to stop, so that nobody is kept waiting for what will not come."""


def services_of(request: Request) -> Services:
    """Return the services of the app that answers `request`."""
    services: Services = request.app.state.services
    return services


Answering = Annotated[Services, Depends(services_of)]


@v1.post(
    REFRESH_PATH,
    summary="Look at the disk now",
    response_model=RefreshView,
    responses=answers(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
    )
    | {202: {"model": RefreshView, "description": "Asked for; `Location` tells how it goes"}},
)
async def refresh(
    request: Request,
    services: Answering,
    body: RefreshBody | None = None,
    prefer: Annotated[str, Header(description="`respond-async`: do not wait for the outcome")] = "",
) -> Response:
    """Ask the watcher for a look at the disk, then wait until every worker has observed what it found.

    The body may be missing or `{}`. `status` says how it went: `converged`; `partial` where the time was
    up before some workers had observed it (`workers.pending` names them); `timeout` where the watcher
    had not answered by then. With `Prefer: respond-async` the answer is a 202 at once.
    """
    body = body or RefreshBody()
    seconds = services.settings.redis_seconds
    async with in_time(seconds):
        refresh_id = await services.queries.start_refresh(body, asked_by=caller_of(request.scope))
    if _prefers_no_wait(prefer):
        async with in_time(seconds):
            view = await services.queries.refresh(refresh_id)
        headers = {"Location": f"{REFRESH_PATH}/{refresh_id}", "Preference-Applied": "respond-async"}
        services.metrics.refreshes.labels(view.status).inc()
        return JSONResponse(view.model_dump(mode="json"), HTTPStatus.ACCEPTED, headers)
    try:
        async with in_time(body.timeout + seconds):
            view = await unless_stopping(
                services.stopping,
                services.queries.finished_refresh(refresh_id, timeout_seconds=body.timeout),
            )
    except DiscoveryError:
        services.metrics.refreshes.labels("failed").inc()
        raise
    services.metrics.refreshes.labels(view.status).inc()
    return JSONResponse(view.model_dump(mode="json"))


@v1.get(
    REFRESH_PATH + "/{refresh_id}",
    summary="How a refresh goes",
    responses=answers(HTTPStatus.NOT_FOUND),
)
async def refresh_as_it_stands(
    services: Answering, refresh_id: Annotated[str, Path(examples=["0f3c1d2e4b5a6978"])]
) -> RefreshView:
    """Return a refresh as it stands. Results are kept for an hour."""
    async with in_time(services.settings.redis_seconds):
        return await services.queries.refresh(refresh_id)


@v1.get(
    "/v1/lora_refreshes",
    summary="Who asked for which refresh",
    responses=answers(HTTPStatus.BAD_REQUEST),
)
async def lora_refreshes(
    services: Answering, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Listed[AskedRefresh]:
    """Return the last refreshes, the newest first: who asked when for what, and how far it has come.

    What they and everything else have changed is told by `/v1/lora_events`, each change with its reason.
    """
    async with in_time(services.settings.redis_seconds):
        return Listed[AskedRefresh](data=await services.queries.refreshes(limit=limit))


@v1.get(
    "/v1/lora_adapters",
    summary="Every adapter, on every worker",
    response_model=Listed[AdapterView],
    responses=answers(),
)
async def lora_adapters(services: Answering) -> Response:
    """Return the catalog by name: what should be served, what the disk says, what each worker has."""
    async with in_time(services.settings.redis_seconds):
        chunks = await services.queries.adapters()
    return StreamingResponse(chunks, media_type="application/json")


@v1.get(
    "/v1/lora_adapters/{name}",
    summary="One adapter, on every worker",
    responses=answers(HTTPStatus.NOT_FOUND),
)
async def lora_adapter(
    services: Answering, name: Annotated[str, Path(examples=["sql_adapter"])]
) -> AdapterView:
    """Return one adapter."""
    async with in_time(services.settings.redis_seconds):
        return await services.queries.adapter(name)


@v1.get(
    "/v1/lora_workers",
    summary="Every living worker",
    responses=answers(),
)
async def lora_workers(services: Answering) -> Listed[WorkerView]:
    """Return how far each worker has come; `lag` counts the changes it has not observed yet."""
    async with in_time(services.settings.redis_seconds):
        return Listed[WorkerView](data=await services.queries.workers())


@v1.get(
    "/v1/lora_events",
    summary="What changes, as it happens",
    response_class=EventSourceResponse,
    responses=answers(HTTPStatus.BAD_REQUEST),
)
async def lora_events(
    services: Answering,
    last_event_id: Annotated[
        str | None, Header(description="Continue after this event; missing: with what comes next")
    ] = None,
) -> EventSourceResponse:
    """Follow the catalog as server-sent events: `added`, `modified`, `deleted`, `noted`, and `resync`.

    `resync` says that events in between are lost: list `/v1/lora_adapters` again, then go on.
    `Last-Event-ID: 0` begins with the oldest event still kept.
    """
    async with in_time(services.settings.redis_seconds):
        start = await services.feed.start(last_event_id)
    return EventSourceResponse(services.feed.stream(start), ping=services.settings.ping_seconds)


@service.get("/healthz", summary="The process answers")
async def healthz() -> Liveness:
    """Return at once, whatever Redis does."""
    return Liveness()


@service.get(
    "/readyz",
    summary="Ready, or why not",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready; `checks` says why"}},
)
async def readyz(services: Answering) -> Response:
    """Return 200 where Redis answers, holds a catalog, and a watcher is alive."""
    ready = await readiness(services.reports, redis_seconds=services.settings.redis_seconds)
    body = ready.model_dump(mode="json")
    if ready.ready:
        return JSONResponse(body)
    return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_SECONDS)})


@service.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(services: Answering) -> Response:
    """Return the counters of this process and the catalog as Redis holds it now."""
    snapshot = await take_snapshot(services.connection, seconds=services.settings.redis_seconds)
    services.metrics.event_streams.set(services.feed.open_streams)
    return Response(services.metrics.render(snapshot), media_type=CONTENT_TYPE_LATEST)


def _prefers_no_wait(prefer: str) -> bool:
    return "respond-async" in {preference.strip().lower() for preference in prefer.split(",")}
