"""`python -m api` and `loradrop api`: the API as a process."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from loradrop.api.app import create_app
from loradrop.api.settings import Settings
from loradrop.catalog.errors import CatalogRefused, KeysInvalid
from loradrop.catalog.process_log import start_log
from loradrop.catalog.settings import Process, parse_command_line
from loradrop.catalog.settings.declared import settings_of

_GRACE_SECONDS = 1
"""What is still being answered at the end may take this long; event streams are closed at once."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped. `arguments` default to the process's own."""
    settings = parse_command_line(
        settings_of(Process.API),
        Process.API,
        Settings.of,
        description="Report which worker serves which adapter, and take refreshes, over HTTP. "
        "LORADROP_API_KEY (keys, commas between) guards everything under /v1.",
        arguments=arguments,
        environment=os.environ,
    )
    start_log(settings.log_level)
    try:
        app = create_app(settings)
    except (CatalogRefused, KeysInvalid) as error:
        sys.stderr.write(f"loradrop api: {error.message}\n")
        sys.exit(2)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,  # else any user of this host could name the caller
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


if __name__ == "__main__":
    main()
