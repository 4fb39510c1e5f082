"""`loradrop ls`: what is served, and what is not and why."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from loradrop.cli import tables
from loradrop.cli.bodies import AdapterBody, Listed, WorkerBody
from loradrop.cli.client import ApiClient
from loradrop.cli.options import DEFAULT_API_URL, ApiUrl, AsJson


def ls(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    *,
    api_url: ApiUrl = DEFAULT_API_URL,
    as_json: AsJson = False,
) -> None:
    """List the adapters: name, state, revision, rank, size, who serves it, and why not.

    WORKERS reads `2/3 loaded 1`: offered by two of three workers, in the engine of one.
    """
    client = ApiClient.at(api_url)
    if names:
        adapters = [client.get(f"/v1/lora_adapters/{quote(name, safe='')}", AdapterBody) for name in names]
        body: Any = {"object": "list", "data": adapters}
    else:
        body = client.get("/v1/lora_adapters", Listed[AdapterBody])
        adapters = body["data"]
    if as_json:
        tables.print_json(body)
        return
    if not adapters:
        tables.say("No adapters yet. Copy one into the prefix, or ask for a look with `loradrop refresh`.")
        return
    workers_total = len(client.get("/v1/lora_workers", Listed[WorkerBody])["data"])
    tables.console().print(tables.adapters_table(adapters, workers_total))
    served = sum(adapter["revision"] is not None for adapter in adapters)
    tables.say(f"{len(adapters)} adapters, {served} served, {workers_total} workers")
