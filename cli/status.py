"""`loradrop status`: what the watcher and every worker do, once or every second."""

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live

from loradrop.cli import tables
from loradrop.cli.client import ApiClient
from loradrop.cli.errors import CommandFailed
from loradrop.cli.fleet_status import ask_fleet_status, rendered
from loradrop.cli.options import DEFAULT_API_URL, ApiUrl, AsJson

_EVERY_SECONDS = 1.0


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, every second.")] = False,
    api_url: ApiUrl = DEFAULT_API_URL,
    as_json: AsJson = False,
) -> None:
    """Show the watcher and every worker: how far each has come, and what is wrong.

    Exits with 1 where something is missing, degraded or behind. With --json and --watch: one line a second.
    """
    client = ApiClient.at(api_url)
    if watch:
        try:
            _print_lines(client) if as_json else _show_live(client)
        except KeyboardInterrupt:
            return
    found = ask_fleet_status(client)
    if as_json:
        tables.print_json(found.as_json())
    else:
        tables.console().print(rendered(found))
    if found.complaints:
        raise typer.Exit(1)


def _print_lines(client: ApiClient) -> None:
    while True:
        try:
            line = ask_fleet_status(client).as_json()
        except CommandFailed as stop:
            line = {"ready": False, "error": str(stop)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        time.sleep(_EVERY_SECONDS)


def _show_live(client: ApiClient) -> None:
    with Live(_picture(client), console=tables.console(), auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_SECONDS)
            live.update(_picture(client), refresh=True)


def _picture(client: ApiClient) -> RenderableType:
    """Return the status, or why there is none: a watch outlives the API it watches."""
    try:
        return rendered(ask_fleet_status(client))
    except CommandFailed as stop:
        return tables.plain(str(stop), "red")
