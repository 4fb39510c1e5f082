"""`loradrop serve`, `watch` and `api`: the processes, each started exactly as `python -m` starts it.

Their modules are imported when they are started, and not before: `loradrop ls` needs none of them,
and an installation without vLLM can do everything but serve.
"""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand

from cli.outcomes import Misused


class Untouched(TyperCommand):
    """A command that hands every argument on as it is, `--help` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep all of `args` for the process."""
        ctx.args = list(args)
        return []


def serve(ctx: typer.Context) -> None:
    """Serve the adapters under a prefix with vLLM: takes every flag of `vllm serve`, and ours."""
    worker = _imported("worker.__main__", extra="vllm")
    raise typer.Exit(worker.main(ctx.args))


def watch(ctx: typer.Context) -> None:
    """Watch a prefix and publish what is ready in it."""
    _run("watch", _imported("watcher.__main__").watch, ctx.args)


def api(ctx: typer.Context) -> None:
    """Report who serves which adapter, and take refreshes, over HTTP."""
    _run("api", _imported("api.__main__").api, ctx.args)


def _run(name: str, function: Any, arguments: list[str]) -> None:
    app = typer.Typer(add_completion=False)
    app.command(name)(function)
    app(args=arguments, prog_name=f"loradrop {name}")


def _imported(module: str, *, extra: str = "") -> Any:
    """Return a module; raises Misused with advice where what it stands on is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = f"loradrop[{extra}]" if extra else "loradrop"
        raise Misused(
            f"{error.name} is not installed here, and this command needs it: pip install {package}"
        ) from error
