"""`loradrop refresh`: ask the watcher to look at the disk now, and wait until every worker knows."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from cli import tables
from cli.client import ApiClient
from cli.options import DEFAULT_API_URL, ApiUrl, AsJson
from cli.outcomes import Stop

_PATH = "/v1/refresh_lora_discovery"
_SPARE_SECONDS = 15.0
"""The API answers when the time is up; the way there and back comes on top."""


def refresh(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; change nothing.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds to wait for the scan and the workers.")
    ] = 30.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask, and do not wait.")] = False,
    api_url: ApiUrl = DEFAULT_API_URL,
    as_json: AsJson = False,
) -> None:
    """Look at the disk now, and wait until every worker knows what was found.

    Exits with 0 where they all do, and with 1 where time ran out or a NAME asked for is rejected.
    """
    client = ApiClient.at(api_url)
    body = client.post(
        _PATH,
        {"names": names or [], "dry_run": dry_run, "timeout": timeout},
        headers={"Prefer": "respond-async"} if no_wait else {},
        seconds=timeout + _SPARE_SECONDS,
    )
    if as_json:
        tables.print_json(body)
    elif no_wait:
        typer.echo(f"Asked. How it goes: {client.url}{_PATH}/{body['refresh_id']}")
    else:
        _print(body)
    if not no_wait:
        _judge(body, names or [])


def _print(body: Mapping[str, Any]) -> None:
    typer.echo(body["message"])
    rows = [
        (name, tables.state_text(outcome), "")
        for key, outcome in (
            ("discovered_adapters", "discovered"),
            ("updated_adapters", "updated"),
            ("removed_adapters", "removed"),
        )
        for name in body[key]
    ]
    rows += [
        (rejected["id"], tables.state_text("rejected"), tables.reason_text(rejected["reason"]))
        for rejected in body["rejected_adapters"]
    ]
    if rows:
        tables.console().print(tables.reasons_table(rows))
    workers = body["workers"]
    typer.echo(f"{body['status']}: {workers['converged']} of {workers['total']} workers know")


def _judge(body: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise Stop where the answer is not a full yes."""
    if body["status"] == "partial":
        raise Stop(f"Time ran out before these workers knew: {', '.join(body['workers']['pending'])}.")
    if body["status"] != "converged":
        raise Stop("Time ran out before the watcher answered. `loradrop status` shows what it does.")
    rejected = {adapter["id"] for adapter in body["rejected_adapters"]}.intersection(names)
    if rejected:
        raise Stop(f"Rejected: {', '.join(sorted(rejected))}.")
