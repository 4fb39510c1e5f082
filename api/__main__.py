"""`python -m api` and `loradrop api`: the API as a process."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from loradrop.api.app import create_app
from loradrop.api.settings import Settings
from loradrop.catalog.errors import CatalogRefused, KeysInvalid
from loradrop.catalog.http.api_keys import API_KEY_FILE_VARIABLE, API_KEY_VARIABLE, entries_in
from loradrop.catalog.redis_keys import DEFAULT_POOL
from loradrop.catalog.store import DEFAULT_REDIS_URL

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_GRACE_SECONDS = 1
"""What is still being answered at the end may take this long; event streams are closed at once."""


def api(
    host: Annotated[
        str, typer.Option(envvar="LORADROP_API_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="LORADROP_API_PORT", min=0, max=65535, help="Port to listen on.")
    ] = 8001,
    redis_url: Annotated[
        str, typer.Option(envvar="LORADROP_REDIS_URL", help="The fleet's Redis.", show_default=True)
    ] = DEFAULT_REDIS_URL,
    pool: Annotated[
        str, typer.Option(envvar="LORADROP_POOL", help="Which fleet on that Redis.")
    ] = DEFAULT_POOL,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar=API_KEY_FILE_VARIABLE,
            help="More keys, one a line: KEY, KEY SCOPE or KEY SCOPE LABEL. Read again when it changes.",
        ),
    ] = None,
    log_level: Annotated[
        str, typer.Option(envvar="LORADROP_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")
    ] = "INFO",
) -> None:
    """Report who serves which adapter, and ask the watcher for refreshes, over HTTP.

    LORADROP_API_KEY (comma-separated keys) guards everything under /v1. `KEY read` may only read.
    """
    if log_level.upper() not in logging.getLevelNamesMapping():
        raise typer.BadParameter("DEBUG, INFO, WARNING or ERROR.", param_hint="--log-level")
    logging.basicConfig(level=log_level.upper(), format=_LOG_FORMAT)
    settings = Settings(
        host=host,
        port=port,
        redis_url=redis_url,
        pool=pool,
        api_keys=entries_in(os.environ),
        api_key_file=api_key_file,
    )
    try:
        app = create_app(settings)
    except CatalogRefused as error:
        raise typer.BadParameter(error.message, param_hint="--redis-url") from error
    except KeysInvalid as error:
        raise typer.BadParameter(error.message, param_hint=f"--api-key-file or {API_KEY_VARIABLE}") from error
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # /metrics counts requests; probes would drown everything else
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    # uvicorn stops on these signals and raises them again when it is done: that was the wish, so exit 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = _Server(config, app.state.services.stopping)
    server.run()
    if not server.started:
        sys.exit(1)


class _Server(uvicorn.Server):
    """Tells the application at once that it has to stop, and not only when every answer is given."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal."""
        self._stopping.set()
        super().handle_exit(sig, frame)


def main() -> None:
    """Run the command line."""
    typer.run(api)


if __name__ == "__main__":
    main()
