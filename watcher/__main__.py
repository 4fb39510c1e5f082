"""`python -m watcher` and `loradrop watch`: flags, environment, logging and signals. Nothing else is here."""

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.redis_keys import DEFAULT_POOL
from loradrop.catalog.store import DEFAULT_REDIS_URL, Connection
from loradrop.watcher.monitor.examiner_pool import THREADS
from loradrop.watcher.settings import NotifierChoice, Settings
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.watcher import Watcher

_logger = logging.getLogger(__name__)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STOP_SECONDS = 1.0


def watch(  # noqa: PLR0913, PLR0917 - one parameter a flag: Typer reads them from here
    lora_dir_prefix: Annotated[
        Path,
        typer.Option(
            envvar="LORADROP_LORA_DIR_PREFIX", help="Where adapters are dropped; may be made later."
        ),
    ],
    lora_discovery_interval: Annotated[
        float,
        typer.Option(
            envvar="LORADROP_LORA_DISCOVERY_INTERVAL",
            min=0,
            help="Seconds between rescans; 0 turns them off.",
        ),
    ] = 30.0,
    redis_url: Annotated[
        str, typer.Option(envvar="LORADROP_REDIS_URL", help="The Redis that holds the catalog.")
    ] = DEFAULT_REDIS_URL,
    pool: Annotated[
        str, typer.Option(envvar="LORADROP_POOL", help="Which catalog in that Redis.")
    ] = DEFAULT_POOL,
    notifier: Annotated[
        NotifierChoice,
        typer.Option(envvar="LORADROP_NOTIFIER", help="How to learn of changes between rescans."),
    ] = NotifierChoice.AUTO,
    lora_settle: Annotated[
        float, typer.Option(envvar="LORADROP_LORA_SETTLE", min=0, help="Seconds files must be still.")
    ] = 1.0,
    allow_pickle: Annotated[
        bool, typer.Option(envvar="LORADROP_ALLOW_PICKLE", help="Admit adapter_model.bin, after a check.")
    ] = True,
    allow_symlinks_to: Annotated[
        list[Path] | None,
        typer.Option(envvar="LORADROP_ALLOW_SYMLINKS_TO", help="Links may lead into this directory, too."),
    ] = None,
    prefix_marker: Annotated[
        str | None,
        typer.Option(
            envvar="LORADROP_PREFIX_MARKER", help="A file the prefix must hold, or it is taken for unmounted."
        ),
    ] = None,
    removal_grace: Annotated[
        float, typer.Option(envvar="LORADROP_REMOVAL_GRACE", min=0, help="Seconds an adapter must be absent.")
    ] = 1.0,
    mass_removal_share: Annotated[
        float,
        typer.Option(
            envvar="LORADROP_MASS_REMOVAL_SHARE", min=0, max=1, help="More than this share at once ..."
        ),
    ] = 0.5,
    mass_removal_count: Annotated[
        int,
        typer.Option(
            envvar="LORADROP_MASS_REMOVAL_COUNT", min=0, help="... and more than this many is held back."
        ),
    ] = 3,
    mass_removal_grace: Annotated[
        float, typer.Option(envvar="LORADROP_MASS_REMOVAL_GRACE", min=0, help="Seconds it is held back.")
    ] = 30.0,
    verify_interval: Annotated[
        float,
        typer.Option(
            envvar="LORADROP_VERIFY_INTERVAL",
            min=0,
            help="Seconds between reading every byte anew; 0: never.",
        ),
    ] = 0.0,
    metrics_host: Annotated[
        str,
        typer.Option(envvar="LORADROP_METRICS_HOST", help="Where /metrics is served, with --metrics-port."),
    ] = "127.0.0.1",
    metrics_port: Annotated[
        int | None,
        typer.Option(envvar="LORADROP_METRICS_PORT", min=0, max=65535, help="Serve Prometheus metrics."),
    ] = None,
    log_level: Annotated[
        str, typer.Option(envvar="LORADROP_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")
    ] = "INFO",
) -> None:
    """Watch a prefix and publish its adapters to the catalog in Redis."""
    logging.basicConfig(level=log_level.upper(), format=_LOG_FORMAT, stream=sys.stderr)
    try:
        settings = Settings(
            prefix=lora_dir_prefix,
            redis_url=redis_url,
            pool=pool,
            interval_seconds=lora_discovery_interval,
            notifier=notifier,
            allow_pickle=allow_pickle,
            allow_symlinks_to=tuple(allow_symlinks_to or ()),
            marker=prefix_marker,
            settle=SettleRule(settle_seconds=lora_settle),
            removal=RemovalRule(
                grace_seconds=removal_grace,
                mass_share=mass_removal_share,
                mass_count=mass_removal_count,
                mass_grace_seconds=mass_removal_grace,
            ),
            verify_interval_seconds=verify_interval,
        )
        asyncio.run(_run(settings, metrics_host, metrics_port))
    except LoradropError as error:
        raise typer.BadParameter(error.message) from error
    _leave()


async def _run(settings: Settings, metrics_host: str, metrics_port: int | None) -> None:
    async with Connection(settings.redis_url, pool=settings.pool) as connection:
        watcher = Watcher(settings, connection)
        if metrics_port is None:
            await _until_stopped(watcher)
            return
        from loradrop.watcher.metrics import WatcherCollector, served  # noqa: PLC0415 - megabytes few people need

        with served(WatcherCollector(watcher), host=metrics_host, port=metrics_port) as port:
            _logger.info("Metrics are served host=%s port=%s", metrics_host, port)
            await _until_stopped(watcher)


async def _until_stopped(watcher: Watcher) -> None:
    running = asyncio.create_task(watcher.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        if not running.cancelled():
            raise


def _leave() -> None:
    """End the process even where a thread hangs in a read of a dead mount."""
    for thread in threading.enumerate():
        if thread.name.startswith(THREADS):
            thread.join(_STOP_SECONDS)
    if any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(0)


def main() -> None:
    """Run `python -m watcher`."""
    typer.run(watch)


if __name__ == "__main__":
    main()
