"""The options every command that asks the API has."""

from typing import Annotated

import typer

from loradrop.catalog.settings.declared import API_URL

DEFAULT_API_URL = API_URL.default_value

ApiUrl = Annotated[
    str,
    typer.Option(
        "--api-url", envvar=API_URL.variable, help=f"{API_URL.help} A key is taken from LORADROP_API_KEY."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]
