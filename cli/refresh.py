"""`loradrop refresh`: ask the watcher to look at the disk now, and wait until every worker knows."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

import typer

from loradrop.cli import tables
from loradrop.cli.bodies import AdapterBody, RefreshBody
from loradrop.cli.client import ApiClient
from loradrop.cli.errors import CommandFailed
from loradrop.cli.options import DEFAULT_API_URL, ApiUrl, AsJson

_PATH = "/v1/refresh_lora_discovery"
_SPARE_SECONDS = 15.0
"""The API answers when the time is up; the way there and back comes on top."""


def refresh(  # noqa: PLR0913 - one parameter a flag: Typer reads them from here
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; change nothing.")
    ] = False,
    confirm_removals: Annotated[
        bool,
        typer.Option("--confirm-removals", help="Remove what is held back because much vanished at once."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds to wait for the scan and the workers.")
    ] = 30.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask, and do not wait.")] = False,
    api_url: ApiUrl = DEFAULT_API_URL,
    as_json: AsJson = False,
) -> None:
    """Look at the disk now, and wait until every worker knows what was found.

    Exits with 0 where they all do, and with 1 where time ran out or a NAME asked for is not ready.
    """
    client = ApiClient.at(api_url)
    asked = {
        "names": names or [],
        "dry_run": dry_run,
        "confirm_removals": confirm_removals,
        "timeout": timeout,
    }
    headers = {"Prefer": "respond-async"} if no_wait else {}
    answer = client.ask("POST", _PATH, asked, headers=headers, seconds=timeout + _SPARE_SECONDS)
    body = client.good("POST", answer, RefreshBody)
    if as_json:
        tables.print_json(body)
    elif no_wait:
        tables.say(f"Asked. How it goes: {client.url}{_PATH}/{body['refresh_id']}")
    else:
        _print(body)
    if no_wait:
        return
    _check_convergence(body)
    if not dry_run:
        _check_names(client, names or [], body["removed_adapters"])


def _print(body: RefreshBody) -> None:
    tables.say(body["message"])
    rows = [
        (name, tables.state_text(outcome), "")
        for names, outcome in (
            (body["discovered_adapters"], "discovered"),
            (body["updated_adapters"], "updated"),
            (body["removed_adapters"], "removed"),
        )
        for name in names
    ]
    rows += [
        (f"… and {number:,} more", tables.state_text(field.removesuffix("_adapters")), "")
        for field, number in body.get("omitted", {}).items()
    ]
    rows += [
        (rejected["id"], tables.state_text("rejected"), tables.reason_text(rejected["reason"]))
        for rejected in body["rejected_adapters"]
    ]
    if rows:
        tables.console().print(tables.reasons_table(rows))
    workers = body["workers"]
    tables.say(f"{body['status']}: {workers['converged']} of {workers['total']} workers know")


def _check_convergence(body: RefreshBody) -> None:
    """Raise CommandFailed where not every worker knows."""
    if body["status"] == "partial":
        raise CommandFailed(
            f"Time ran out before these workers knew: {', '.join(body['workers']['pending'])}."
        )
    if body["status"] != "converged":
        raise CommandFailed("Time ran out before the watcher answered. `loradrop status` shows what it does.")


def _check_names(client: ApiClient, names: Sequence[str], removed: Sequence[str]) -> None:
    """Raise CommandFailed where one of `names` is not ready now; one that was removed is as it should be."""
    complaints = []
    for name in names:
        if name in removed:
            continue
        answer = client.ask("GET", f"/v1/lora_adapters/{quote(name, safe='')}")
        if answer.status == HTTPStatus.NOT_FOUND:
            complaints.append(f"{name}: not under the prefix")
        elif (adapter := client.good("GET", answer, AdapterBody))["state"] != "ready":
            complaints.append(f"{name}: {adapter['state']}, {tables.reason_text(adapter['reason'])}")
    if complaints:
        raise CommandFailed("\n".join(complaints))
