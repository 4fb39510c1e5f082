"""vLLM's own web application, with every route it can have and our plugin, put together by vLLM itself.

There is no engine behind it: a test sets on its state the handlers that its requests reach.
"""

import functools
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

from fastapi import FastAPI
from starlette.routing import Mount

from loradrop.worker.settings import add_flags

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what vLLM's imports are warned of is not ours to mend
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.pooling.base.serving import PoolingBaseServing
    from vllm.entrypoints.serve.engine.serving import BaseServing
    from vllm.tasks import GENERATION_TASKS, POOLING_TASKS
    from vllm.utils.argparse_utils import FlexibleArgumentParser

__all__ = ["VARIABLES", "BaseServing", "PoolingBaseServing", "routes_of", "vllm_app"]

_EVERYTHING = ("--enable-lora", "--enable-tokenizer-info-endpoint", "--tokens-only", "--enable-offline-docs")

VARIABLES = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_ENABLE_COHERE_API": "1",
    "VLLM_PLUGINS": "loradrop",
    "VLLM_SERVER_DEV_MODE": "1",
}
"""The environment in which vLLM has all its routes, and loads our plugin."""


def vllm_app(*flags: str) -> FastAPI:
    """Return the application of `vllm serve MODEL` with `flags`, in an environment with VARIABLES."""
    args = _parser().parse_args(["--model", "tiny", *_EVERYTHING, *flags])
    args.enable_fault_tolerance = True
    args.profiler_config = args.profiler_config.__class__(profiler="cuda")
    embedding = SimpleNamespace(get_pooling_task=lambda _: "embed", io_processor_plugin=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_app(args, (*GENERATION_TASKS, *POOLING_TASKS, "render"), embedding)


@functools.cache
def _parser() -> FlexibleArgumentParser:
    parser = make_arg_parser(FlexibleArgumentParser())
    if "--lora-dir-prefix" not in parser._option_string_actions:
        add_flags(parser)
    return parser


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield the method and path of every route; `GET` for WebSockets and mounted applications."""
    for route in app.routes:
        path = f"{route.path}/file" if isinstance(route, Mount) else route.path  # type: ignore[attr-defined]
        for method in getattr(route, "methods", None) or ("GET",):
            yield method, path
