"""`loradrop validate`: would this adapter be accepted, and if not, why not?"""

from pathlib import Path
from typing import Annotated

import typer

from loradrop.catalog.settings.declared import ALLOW_PICKLE, ALLOW_SYMLINKS_TO
from loradrop.cli import tables


def validate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", exists=True, help="An adapter's directory, or a prefix of them."),
    ],
    *,
    allow_pickle: Annotated[bool, typer.Option(envvar=ALLOW_PICKLE.variable, help=ALLOW_PICKLE.help)] = True,
    allow_symlinks_to: Annotated[
        list[Path] | None, typer.Option(envvar=ALLOW_SYMLINKS_TO.variable, help=ALLOW_SYMLINKS_TO.help)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the validations as JSON.")] = False,
) -> None:
    """Check adapters before they are dropped, as the watcher would: nothing is loaded or executed.

    Exits with 1 where any of them would not be accepted.
    """
    from loradrop.cli.validation import validations  # noqa: PLC0415  # the watcher's checks: no other command needs them

    found = [
        validation
        for path in paths
        for validation in validations(
            path, allow_pickle=allow_pickle, allow_symlinks_to=tuple(allow_symlinks_to or ())
        )
    ]
    if as_json:
        tables.print_json([validation.as_json() for validation in found])
    else:
        tables.console().print(tables.validations_table([validation.as_json() for validation in found]))
        accepted = sum(validation.is_accepted for validation in found)
        tables.say(f"{accepted} of {len(found)} accepted")
    if not all(validation.is_accepted for validation in found):
        raise typer.Exit(1)
