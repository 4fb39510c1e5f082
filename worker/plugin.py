"""The endpoint plugin: how vLLM's API server comes to run a worker.

vLLM makes one in each API process. It does nothing unless a flag or variable of ours asks for it.
`attach_router` adds the routes; `init_state`, the last step before the server listens, starts the worker;
its task is cancelled with the server's event loop, and cleans up.
"""

import asyncio
import logging
import os
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from worker.routes import not_served_yet, router
from worker.settings import WorkerSettings, settings_from
from worker.outcomes import NotServedYet

_log = logging.getLogger("loradrop.worker.plugin")


@dataclass(frozen=True, slots=True)
class Loradrop:
    """What the routes find at `app.state.loradrop`."""

    settings: WorkerSettings
    engine: Any
    worker: Any
    task: asyncio.Task[None]
    """Runs the worker; kept here so that it is not collected."""


class LoradropPlugin:
    """vLLM's contract for an endpoint plugin."""

    name = "loradrop"
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes to `app`, if we are asked for; raises SettingsError."""
        settings = settings_from(app.state.args, os.environ)
        if settings.asked_for:
            app.include_router(router)
            app.exception_handler(NotServedYet)(not_served_yet)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Start the worker, if we are asked for.

        Raises SettingsError and RuntimeError, which end the server's start with their sentence.
        """
        settings = settings_from(args, os.environ)
        if not settings.asked_for or engine_client is None:
            return
        from worker.engine import Engine  # noqa: PLC0415 - imports vLLM's serving code, which loads this file
        from worker.worker import running_worker  # noqa: PLC0415 - imports worker.engine

        _log_like_vllm()
        engine = Engine(engine_client, state.openai_serving_models)
        identity = settings.identity(host=args.host, port=args.port, process_rank=engine.process_rank)
        url = f"http://{identity.partition('#')[0]}"
        started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def live() -> None:
            try:
                async with running_worker(engine, settings, url=url, identity=identity) as worker:
                    started.set_result(worker)
                    await asyncio.Event().wait()
            except Exception as error:
                if started.done():
                    _log.exception("the worker broke; what is loaded goes on being served")
                else:
                    started.set_exception(error)

        task = asyncio.create_task(live(), name="loradrop")
        state.loradrop = Loradrop(settings, engine, await started, task)
        _log.info(
            "worker ready id=%s base_model=%s prefix=%s",
            identity,
            engine.base_model,
            settings.lora_dir_prefix,
        )


def _log_like_vllm() -> None:
    """Send our log where vLLM's goes, in its format."""
    ours, theirs = logging.getLogger("loradrop"), logging.getLogger("vllm")
    ours.handlers, ours.propagate = theirs.handlers, theirs.propagate
    ours.setLevel(theirs.level or logging.INFO)
