"""`loradrop status`: what the watcher and every worker do, once or every second."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from loradrop.cli import tables
from loradrop.cli.bodies import Listed, ReadinessBody, WorkerBody, is_like
from loradrop.cli.client import ApiClient
from loradrop.cli.errors import CommandFailed
from loradrop.cli.options import DEFAULT_API_URL, ApiUrl, AsJson

_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _FleetStatus:
    """The body of /readyz, and the workers where the API could name them."""

    readiness: ReadinessBody
    workers: Sequence[WorkerBody]

    @property
    def complaints(self) -> list[str]:
        """Everything that is not as it should be: missing, degraded or behind."""
        watcher = self.readiness["watcher"]
        found = [check["reason"]["message"] for check in self.readiness["checks"] if check["reason"]]
        if watcher and watcher["degraded"]:
            found.append(f"The watcher is degraded: {watcher['degraded']['message']}")
        found += [
            f"The worker {worker['id']} is degraded: {worker['degraded']['message']}"
            for worker in self.workers
            if worker["degraded"]
        ]
        if behind := [worker["id"] for worker in self.workers if worker["lag"]]:
            found.append(f"Behind the catalog: {', '.join(behind)}.")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all of it as one document."""
        return {**self.readiness, "workers": self.workers}


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
    found = _ask(client)
    if as_json:
        tables.print_json(found.as_json())
    else:
        tables.console().print(_rendered(found))
    if found.complaints:
        raise typer.Exit(1)


def _print_lines(client: ApiClient) -> None:
    while True:
        try:
            line = _ask(client).as_json()
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
        return _rendered(_ask(client))
    except CommandFailed as stop:
        return tables.plain(str(stop), "red")


def _ask(client: ApiClient) -> _FleetStatus:
    """Return what the API says; raises Unreachable where it is none."""
    answer = client.ask("GET", "/readyz")
    readiness: ReadinessBody = answer.body
    if not is_like(readiness, ReadinessBody):  # a server that is not ready answers in the same shape
        readiness = client.good("GET", answer, ReadinessBody)
    workers: list[WorkerBody] = []
    if readiness["epoch"] is not None:
        answered = client.ask("GET", "/v1/lora_workers")
        # Redis may have gone since: then there is nothing to say about workers, and readiness says why.
        if answered.status != HTTPStatus.SERVICE_UNAVAILABLE:
            workers = client.good("GET", answered, Listed[WorkerBody])["data"]
    return _FleetStatus(readiness, workers)


def _rendered(status: _FleetStatus) -> RenderableType:
    """Return it for a terminal: the whole, the watcher, a row for each worker, then what is wrong."""
    readiness, watcher = status.readiness, status.readiness["watcher"]
    parts: list[RenderableType] = [
        Text("ready", "green") if readiness["ready"] else Text("not ready", "bold red")
    ]
    if readiness["epoch"] is not None:
        parts.append(tables.plain(f"catalog  epoch {readiness['epoch']}  seq {readiness['seq']}"))
    if watcher:
        scanned = f"{tables.age(watcher['last_scan_at'])} ago" if watcher["last_scan_at"] else "not yet"
        line = tables.plain(f"watcher  {watcher['id']}  {watcher['mode']}  {watcher['prefix']}  ")
        parts.append(line + Text(f"scanned {scanned}  ") + tables.counts_text(watcher["adapters"]))
    parts.append(tables.workers_table(status.workers) if status.workers else Text("workers  none"))
    parts += [tables.plain(complaint, "yellow") for complaint in status.complaints]
    return Group(*parts)
