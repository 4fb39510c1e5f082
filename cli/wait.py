"""`loradrop wait`: go on once an adapter is served, for scripts that deploy one.

Whether it is served, will never be, or may still be is `progress_of` from what the API says, and pure.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import typer

from loradrop.cli import tables
from loradrop.cli.bodies import AdapterBody, Listed, WorkerBody
from loradrop.cli.client import ApiClient
from loradrop.cli.errors import CommandFailed, TimedOut, UsageError
from loradrop.cli.options import DEFAULT_API_URL, ApiUrl

_EVERY_SECONDS = 0.25
_REVISION = re.compile(r"[0-9a-f]{4,64}")
_SERVING = ("listed", "loaded")


class Outcome(StrEnum):
    """What became of an adapter that is waited for."""

    SERVED = "served"
    REJECTED = "rejected"
    """Not these bytes, never: by the watcher, or by so many workers that too few are left."""
    REMOVED = "removed"
    PENDING = "pending"
    """Not yet."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is waited for: `revision` by its first digits, any where empty; all `workers` where None."""

    name: str
    revision: str = ""
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come, and why not further; `serving` and `pending` are ids of workers."""

    outcome: Outcome
    message: str
    adapter: AdapterBody | None = None
    serving: Sequence[str] = ()
    pending: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the progress, with the adapter as the API shows it."""
        return {
            "outcome": self.outcome,
            "message": self.message,
            "workers": {"serving": list(self.serving), "pending": list(self.pending)},
            "adapter": self.adapter,
        }


def wait(
    target: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="The first digits of a revision will do.")
    ],
    *,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many must serve it; left out: all, and at least one.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait.")] = 300.0,
    api_url: ApiUrl = DEFAULT_API_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of it as JSON.")] = False,
) -> None:
    """Wait until every worker serves NAME: lists it, or has it loaded, in the revision now on disk.

    Exits with 0 where they do, 1 where it was rejected or removed, 2 where it was asked in a wrong way,
    3 where no API answers, and 4 where the time is up.
    """
    wanted = _parsed(target, workers)
    client = ApiClient.at(api_url)
    deadline = time.monotonic() + timeout
    progress = _ask(client, wanted, was_there=False)
    while progress.outcome is Outcome.PENDING and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(_EVERY_SECONDS, left))
        progress = _ask(client, wanted, was_there=progress.adapter is not None)
    if as_json:
        tables.print_json(progress.as_json())
    if progress.outcome is Outcome.PENDING:
        raise TimedOut(f"Not within {timeout:g} s. {progress.message}")
    if progress.outcome is not Outcome.SERVED:
        raise CommandFailed(progress.message)
    if not as_json:
        tables.say(progress.message)


def progress_of(target: Target, adapter: AdapterBody, workers: Sequence[str]) -> Progress:
    """Return how far `adapter` has come on the living `workers`."""
    revision = adapter["revision"]
    has_revision = revision is not None and revision.startswith(target.revision)
    if adapter["state"] == "rejected" and not (target.revision and has_revision):
        return Progress(Outcome.REJECTED, f"{target.name}: {tables.reason_text(adapter['reason'])}", adapter)
    is_updating = not target.revision and adapter["state"] != "ready"
    if not has_revision or is_updating:
        return Progress(Outcome.PENDING, _not_ready(target, adapter), adapter, pending=workers)
    return _on_workers(target, adapter, workers)


def _on_workers(target: Target, adapter: AdapterBody, workers: Sequence[str]) -> Progress:
    here = {
        worker: said
        for worker, said in adapter["workers"].items()
        if worker in workers and said["revision"] == adapter["revision"]
    }
    serving = [worker for worker, said in here.items() if said["state"] in _SERVING]
    pending = [worker for worker in workers if worker not in serving]
    needed = target.workers or max(1, len(workers))
    refused = {worker: said["reason"] for worker, said in here.items() if said["state"] == "rejected"}
    if len(serving) >= needed:
        revision = (adapter["revision"] or "")[:12]
        message = f"{target.name} is served in {revision} by {len(serving)} of {len(workers)} workers."
        return Progress(Outcome.SERVED, message, adapter, serving, pending)
    if refused and len(workers) - len(refused) < needed:
        why = [f"{worker}: {tables.reason_text(reason)}" for worker, reason in refused.items()]
        return Progress(Outcome.REJECTED, "\n".join(why), adapter, serving, pending)
    message = f"{target.name} is served by {len(serving)} of {needed} workers"
    waiting = f", and not by {', '.join(pending)}." if pending else "."
    return Progress(Outcome.PENDING, message + waiting, adapter, serving, pending)


def _ask(client: ApiClient, target: Target, *, was_there: bool) -> Progress:
    answer = client.ask("GET", f"/v1/lora_adapters/{quote(target.name, safe='')}")
    if answer.status == HTTPStatus.NOT_FOUND:
        if was_there:
            return Progress(Outcome.REMOVED, f"{target.name} was removed from the prefix meanwhile.")
        return Progress(Outcome.PENDING, f"{target.name} is not under the prefix.")
    adapter = client.good("GET", answer, AdapterBody)
    workers = [worker["id"] for worker in client.get("/v1/lora_workers", Listed[WorkerBody])["data"]]
    return progress_of(target, adapter, workers)


def _parsed(target: str, workers: int | None) -> Target:
    name, separator, revision = target.partition("@")
    if not name or (separator and not _REVISION.fullmatch(revision)):
        raise UsageError(
            f"{target!r} is not NAME or NAME@REVISION, with 4 to 64 of the digits `loradrop ls` shows."
        )
    return Target(name, revision, workers)


def _not_ready(target: Target, adapter: AdapterBody) -> str:
    """Return what is on disk, and what is served meanwhile."""
    served = (adapter["revision"] or "nothing")[:12]
    reason = f", {tables.reason_text(adapter['reason'])}" if adapter["reason"] else ""
    return f"{target.name} is {adapter['state']} on disk{reason}; {served} is to be served."
