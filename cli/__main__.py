"""`loradrop` and `python -m cli`: the commands, put together."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from loradrop.cli import adapters, processes, refresh, status, tables, validate, wait
from loradrop.cli.errors import CommandFailed


class _Commands(TyperGroup):
    """Ends a command that stops with its sentence and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CommandFailed as stop:
            tables.complain(str(stop))
            raise typer.Exit(stop.exit_code) from stop


app = typer.Typer(
    name="loradrop",
    cls=_Commands,
    help="Drop a LoRA folder under a prefix, and every vLLM worker serves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if not asked:
        return
    from importlib import metadata  # noqa: PLC0415  # slow to import, and rarely asked for

    try:
        tables.say(f"loradrop {metadata.version('loradrop')}")
    except metadata.PackageNotFoundError:
        tables.say("loradrop, from a checkout that is not installed")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command(cls=processes.Untouched)(processes.serve)
app.command(cls=processes.Untouched)(processes.watch)
app.command(cls=processes.Untouched)(processes.api)
app.command()(adapters.ls)
app.command()(status.status)
app.command()(refresh.refresh)
app.command()(wait.wait)
app.command()(validate.validate)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
