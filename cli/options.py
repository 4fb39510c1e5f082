"""The options every command that asks the API has."""

from typing import Annotated

import typer

DEFAULT_API_URL = "http://127.0.0.1:8001"

ApiUrl = Annotated[
    str,
    typer.Option(
        "--api-url",
        envvar="LORADROP_API_URL",
        help="Where the API listens. A key is taken from LORADROP_API_KEY.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]
