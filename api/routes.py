"""The routes that only the API serves; those of both ports are `catalog.http.shared_routes`."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse

from loradrop.api.events import EventFeed, Start
from loradrop.api.health import readiness
from loradrop.api.metrics import Metrics, take_snapshot
from loradrop.api.schemas import Liveness, Readiness
from loradrop.api.settings import Settings
from loradrop.catalog.http.auth import is_admitted_of
from loradrop.catalog.http.deadlines import in_time
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import AskedRefresh
from loradrop.catalog.http.shared_routes import errors
from loradrop.catalog.http.statuses import RETRY_AFTER_SECONDS
from loradrop.catalog.http.views import Listed, WorkerView
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
    """Set when the process is asked to stop, so that no client is kept waiting for what will not come."""


async def services_of(request: Request) -> Services:
    """Return the services of the app that answers `request`."""
    services: Services = request.app.state.services
    return services


_Answering = Annotated[Services, Depends(services_of)]


class _EventStream(EventSourceResponse):
    """The answer that follows the events; gives up its place however it ends, even before it begins."""

    def __init__(self, feed: EventFeed, start: Start, request: Request) -> None:
        settings: Settings = request.app.state.services.settings
        events = feed.stream(start, is_admitted=is_admitted_of(request.scope))
        super().__init__(events, ping=settings.ping_seconds)
        self._feed, self._start = feed, start

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.leave(self._start)


@v1.get("/v1/lora_refreshes", summary="Who asked for which refresh", responses=errors(HTTPStatus.BAD_REQUEST))
async def lora_refreshes(
    services: _Answering, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Listed[AskedRefresh]:
    """Return the last refreshes, the newest first: who asked when for what, and how far it has come.

    What they and everything else have changed is told by `/v1/lora_events`, each change with its reason.
    """
    async with in_time(services.settings.redis_seconds):
        return Listed[AskedRefresh](data=await services.queries.refreshes(limit=limit))


@v1.get("/v1/lora_workers", summary="Every living worker")
async def lora_workers(services: _Answering) -> Listed[WorkerView]:
    """Return how far each worker has come; `lag` counts the changes it has not observed yet."""
    async with in_time(services.settings.redis_seconds):
        return Listed[WorkerView](data=await services.queries.workers())


@v1.get(
    "/v1/lora_events",
    summary="What changes, as it happens",
    response_class=EventSourceResponse,
    responses=errors(HTTPStatus.BAD_REQUEST),
)
async def lora_events(
    request: Request,
    services: _Answering,
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
    return _EventStream(services.feed, start, request)


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
async def readyz(services: _Answering) -> Response:
    """Return 200 where Redis answers, holds a catalog, and a watcher is alive."""
    ready = await readiness(services.reports, redis_seconds=services.settings.redis_seconds)
    body = ready.model_dump(mode="json")
    if ready.ready:
        return JSONResponse(body)
    return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_SECONDS)})


@service.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(services: _Answering) -> Response:
    """Return the counters of this process and the catalog as Redis holds it now."""
    snapshot = await take_snapshot(services.connection, seconds=services.settings.redis_seconds)
    services.metrics.event_streams.set(services.feed.open_streams)
    return Response(services.metrics.render(snapshot), media_type=CONTENT_TYPE_LATEST)
