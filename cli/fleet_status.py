"""Is everything there and in step? What the API says about itself, the watcher and the workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from loradrop.cli import tables
from loradrop.cli.bodies import ReadinessBody, WorkerBody, WorkersBody, is_like
from loradrop.cli.client import ApiClient


@dataclass(frozen=True, slots=True)
class FleetStatus:
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


def ask_fleet_status(client: ApiClient) -> FleetStatus:
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
            workers = client.good("GET", answered, WorkersBody)["data"]
    return FleetStatus(readiness, workers)


def rendered(status: FleetStatus) -> RenderableType:
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
