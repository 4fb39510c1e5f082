"""Is everything there and in step? What the API says about itself, the watcher and the workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from loradrop.cli import tables
from loradrop.cli.client import ApiClient
from loradrop.cli.outcomes import Unreachable


@dataclass(frozen=True, slots=True)
class Standing:
    """The body of /readyz, and the workers where the API could name them."""

    readiness: Mapping[str, Any]
    workers: Sequence[Mapping[str, Any]]

    @property
    def complaints(self) -> list[str]:
        """Everything that is not as it should be: missing, degraded or behind."""
        watcher = self.readiness["watcher"] or {}
        found = [check["reason"]["message"] for check in self.readiness["checks"] if not check["ok"]]
        if watcher.get("degraded"):
            found.append(f"The watcher is degraded: {watcher['degraded']['message']}")
        found += [
            f"The worker {worker['id']} is degraded: {worker['degraded']['message']}"
            for worker in self.workers
            if worker.get("degraded")
        ]
        if behind := [worker["id"] for worker in self.workers if worker["lag"]]:
            found.append(f"Behind the catalog: {', '.join(behind)}.")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all of it as one document."""
        return {**self.readiness, "workers": self.workers}


def ask_standing(client: ApiClient) -> Standing:
    """Return what the API says; raises Unreachable where it is none."""
    answer = client.ask("GET", "/readyz")
    if not isinstance(answer.body, dict) or "checks" not in answer.body:
        raise Unreachable(f"{client.url} answers, but is not a loradrop API. Say where it is with --api-url.")
    workers: list[Any] = []
    if answer.body["epoch"] is not None:
        answered = client.ask("GET", "/v1/lora_workers")
        # Redis may have gone since: then there is nothing to say about workers, and readiness says why.
        if answered.status != HTTPStatus.SERVICE_UNAVAILABLE:
            workers = client.good("GET", answered)["data"]
    return Standing(answer.body, workers)


def rendered(standing: Standing) -> RenderableType:
    """Return it as people read it: the whole, the watcher, a row for each worker, then what is wrong."""
    readiness, watcher = standing.readiness, standing.readiness["watcher"]
    parts: list[RenderableType] = [
        Text("ready", "green") if readiness["ready"] else Text("not ready", "bold red")
    ]
    if readiness["epoch"] is not None:
        parts.append(Text(f"catalog  epoch {readiness['epoch']}  seq {readiness['seq']}"))
    if watcher:
        scanned = f"{tables.age(watcher['last_scan_at'])} ago" if watcher["last_scan_at"] else "not yet"
        line = tables.plain(f"watcher  {watcher['id']}  {watcher['mode']}  {watcher['prefix']}  ")
        parts.append(line + Text(f"scanned {scanned}  ") + tables.counts_text(watcher["adapters"]))
    parts.append(tables.workers_table(standing.workers) if standing.workers else Text("workers  none"))
    parts += [tables.plain(complaint, "yellow") for complaint in standing.complaints]
    return Group(*parts)
