"""The endpoint plugin, through which vLLM's API server runs a worker.

vLLM makes one in each API process. It does nothing unless a flag or variable of ours asks for it.
`attach_router` adds the routes; `init_state`, the last step before the server listens, starts the worker;
its task is cancelled with the server's event loop, and cleans up.
"""

import asyncio
import logging
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import REGISTRY, CollectorRegistry

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.api_keys import ApiKey, KeyFile, KeyRing, Scope, keys_from
from loradrop.catalog.http.auth import AuthMiddleware, ChallengeMiddleware
from loradrop.catalog.http.browsers import AllowedHosts
from loradrop.catalog.http.shared_routes import Backend, put_backend
from loradrop.catalog.http.shared_routes import router as shared
from loradrop.catalog.process_log import PrintableRecords
from loradrop.worker.engine.finds import RequestTask
from loradrop.worker.outcomes import NotServedYet
from loradrop.worker.server.answers import AnswerMiddleware
from loradrop.worker.server.metrics_route import shown_registry
from loradrop.worker.server.routes import answer_early, answer_error, models_router, refusal
from loradrop.worker.server.scopes import needed_scope
from loradrop.worker.settings import settings_from

_log = logging.getLogger(__name__)

_CHALLENGE = ChallengeMiddleware


class LoradropPlugin:
    """vLLM's contract for an endpoint plugin."""

    name = "loradrop"
    required_tasks = None
    _registry: CollectorRegistry = REGISTRY
    """What is registered here is in `GET /metrics`."""
    _task: asyncio.Task[None]
    """Runs the worker; kept here so that it is not collected."""

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes to `app`, if we are asked for; raises SettingsInvalid and KeysInvalid."""
        settings = settings_from(app.state.args, os.environ)
        if not settings.asked_for:
            return
        _log_like_vllm()
        app.include_router(shared)
        app.exception_handler(LoradropError)(answer_error)
        if settings.has_catalog:
            _drop_routes(app, {route.path for route in models_router.routes if isinstance(route, APIRoute)})
            app.include_router(models_router)
            app.exception_handler(NotServedYet)(answer_early)
            app.add_middleware(AnswerMiddleware)
            app.add_middleware(RequestTask)
            self._registry = shown_registry(app)
        hosts = AllowedHosts(app.state.args.host or "localhost", *settings.api_allowed_hosts)
        _guard(app, keys_from(settings.api_keys), settings.api_key_file, hosts)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Start the worker, if we are asked for.

        Raises SettingsInvalid and RuntimeError, which end the server's start with their sentence.
        """
        settings = settings_from(args, os.environ)
        if not settings.has_catalog or engine_client is None:
            return
        # They import vLLM's serving code, which may be what loads this file.
        from loradrop.worker.engine.engine import Engine, require_vllm_contract
        from loradrop.worker.engine.model_table import ModelTable
        from loradrop.worker.engine.public_names import show_public_names
        from loradrop.worker.worker import WorkerOptions, running_worker

        require_vllm_contract(engine_client)
        show_public_names(engine_client)
        table = ModelTable(state.openai_serving_models)
        engine = Engine(engine_client, static_count=table.static_count)
        identity = settings.identity(host=args.host, port=args.port, process_rank=engine.process_rank)
        url = f"{'https' if args.ssl_certfile else 'http'}://{identity.partition('#')[0]}"
        options = WorkerOptions(registry=self._registry)
        if connectors := engine.doubtful_connectors:
            _log.warning(
                "adapters may share what is cached of others, see vllm-project/vllm#44250 kv_connectors=%s",
                ",".join(connectors),
            )
        started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def live() -> None:
            try:
                async with running_worker(
                    engine, table, settings, url=url, identity=identity, options=options
                ) as worker:
                    started.set_result(worker)
                    await asyncio.Event().wait()
            except Exception as error:  # noqa: BLE001 - raised where the start is awaited, or logged
                if started.done():
                    _log.exception("the worker broke; what is loaded goes on being served")
                else:
                    started.set_exception(error)

        self._task = asyncio.create_task(live(), name="loradrop")
        state.loradrop = await started
        put_backend(state, Backend(queries=state.loradrop.queries))
        _log.info(
            "worker ready id=%s base_model=%s prefix=%s", identity, table.base_model, settings.lora_dir_prefix
        )


def _guard(app: FastAPI, ours: tuple[ApiKey, ...], key_file: Path | None, hosts: AllowedHosts) -> None:
    """Give vLLM's guard our keys beside its own, and put our middleware behind it.

    vLLM makes its guard after this, once: a key that appears in a file later opens nothing until the server
    starts again. One that disappears opens nothing at once, since our gate knows.
    """
    file = KeyFile(key_file) if key_file else None
    ring = KeyRing(ours, file=file)
    known = {key.secret for key in ring.keys}  # also given to vLLM, it keeps the scope that we were told
    theirs = [key for key in app.state.args.api_key or [os.environ.get("VLLM_API_KEY", "")] if key]
    if known:
        app.state.args.api_key = [*theirs, *(key.secret for key in ring.keys)]
    admins = [ApiKey(key, Scope.ADMIN, "vllm") for key in theirs if key not in known]
    ring = KeyRing((*admins, *ours), file=file)
    app.add_middleware(AuthMiddleware, keys=ring, needed=needed_scope, refusal=refusal, hosts=hosts)
    # vLLM adds these last, so they see the answers of its own guard too.
    app.state.args.middleware = [*app.state.args.middleware, f"{_CHALLENGE.__module__}.{_CHALLENGE.__name__}"]


def _drop_routes(app: FastAPI, paths: set[str]) -> None:
    """Drop vLLM's routes that ours take the place of; before 0.32 vLLM keeps both, and asks its own."""
    app.router.routes[:] = [
        route for route in app.router.routes if not (isinstance(route, APIRoute) and route.path in paths)
    ]


def _log_like_vllm() -> None:
    """Send our log where vLLM's goes, in its format, without anything that a terminal would obey."""
    ours, theirs = logging.getLogger("loradrop"), logging.getLogger("vllm")
    ours.handlers, ours.propagate = theirs.handlers, theirs.propagate
    for handler in ours.handlers:
        if not any(isinstance(known, PrintableRecords) for known in handler.filters):
            handler.addFilter(PrintableRecords("loradrop"))
    ours.setLevel(theirs.level or logging.INFO)
