"""The API as an ASGI application: its parts, put together."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata

from fastapi import FastAPI

from loradrop.api.documentation import document
from loradrop.api.events import EventFeed
from loradrop.api.metrics import CountRequests, Metrics
from loradrop.api.problems import add_problem_handlers, problem_of
from loradrop.api.routes import Services, service, v1
from loradrop.api.settings import Settings
from loradrop.catalog.http.api_keys import KeyFile, KeyRing, Scope, keys_from
from loradrop.catalog.http.auth import GUARDED, AuthMiddleware
from loradrop.catalog.http.browsers import AllowedHosts
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.shared_routes import Backend, put_backend
from loradrop.catalog.http.shared_routes import router as shared
from loradrop.catalog.settings.declared import API_KEY
from loradrop.catalog.store import Connection, Reader, Reports

logger = logging.getLogger(__name__)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})

_DESCRIPTION = """
Who serves which LoRA adapter, and a way to ask the watcher to look at the disk now.

Errors are problem details (RFC 9457, `application/problem+json`) with a stable `code` and a `detail` that
says what to do; an invalid request is a 400. A 503 carries `Retry-After`: nothing is lost, try again.
"""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; raises CatalogRefused where the Redis URL is none, and KeysInvalid.

    It starts whether or not Redis is there, and answers 503 while it is away.
    """
    key_file = KeyFile(settings.api_key_file) if settings.api_key_file is not None else None
    keys = KeyRing(keys_from(settings.api_keys), file=key_file)
    connection = Connection(settings.redis_url, pool=settings.pool)
    stopping = asyncio.Event()
    services = Services(
        settings=settings,
        connection=connection,
        queries=Queries(connection),
        reports=Reports(connection),
        feed=EventFeed(Reader(connection), max_streams=settings.max_event_streams, stopping=stopping),
        metrics=Metrics(),
        stopping=stopping,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with connection:
            yield

    app = FastAPI(
        title="loradrop",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead wherever `Host` says
    )
    app.state.services = services
    backend = Backend(
        queries=services.queries,
        redis_seconds=settings.redis_seconds,
        stopping=stopping,
        count_refresh=lambda status: services.metrics.refreshes.labels(status).inc(),
    )
    put_backend(app.state, backend)
    document(app, is_guarded=not keys.is_open)
    for router in (shared, v1, service):
        app.include_router(router)
    add_problem_handlers(app)
    hosts = AllowedHosts(settings.host, *settings.allowed_hosts)
    app.add_middleware(
        AuthMiddleware, keys=keys, needed=_needed, refusal=problem_of, hosts=hosts, only_hosts=True
    )
    if settings.is_public_without_key:
        logger.warning(
            "EVERYONE WHO REACHES host=%s port=%s CAN READ THE CATALOG AND ASK FOR REFRESHES; set %s",
            settings.host,
            settings.port,
            API_KEY.variable,
        )
    app.add_middleware(CountRequests, metrics=services.metrics)
    return app


def _needed(method: str, path: str) -> Scope | None:
    if not f"{path}/".startswith(f"{GUARDED}/"):
        return None
    return Scope.READ if method in _READING else Scope.ADMIN


def _version() -> str:
    try:
        return metadata.version("loradrop")
    except metadata.PackageNotFoundError:
        return "0"  # run from a checkout that is not installed
