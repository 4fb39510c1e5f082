"""Our flags on vLLM's own command lines: a `vllm.general_plugins` entry.

vLLM runs it in every process, before it builds a parser. It hooks four places:

* the last hook of the parser, where a platform may add flags: ours are added there. Every command of vLLM
  passes it; where no server with plugins would start, the flags that ask for us are refused;
* the loading of endpoint plugins, which vLLM does for plugins named in VLLM_PLUGINS only. Setting that
  variable would filter out all others, so ours is added to what vLLM has loaded. It stays idle unless a
  flag or variable of ours asks for it;
* in the engine's process, the publisher of KV events (`public_events`);
* on a CPU, the kernels that apply adapters (`cpu_lora_patch`).
"""

import functools
import os
from argparse import ArgumentTypeError
from typing import Any, NoReturn

from loradrop.catalog.settings import Process, declared
from loradrop.worker.engine.cpu_lora_patch import patch_cpu_lora_kernels
from loradrop.worker.settings import add_flags, environment_fault

_MARK = "_loradrop"
_ASKING = (declared.LORA_DIR_PREFIX, declared.REDIS_URL)
_NO_SERVER = "this command runs no server that could follow it. Use `vllm serve` or `loradrop serve`."


def register() -> None:
    """Hook all places; calling it again changes nothing."""
    import vllm.plugins
    from vllm.platforms import current_platform

    platform = type(current_platform)
    if not hasattr(platform.pre_register_and_update, _MARK):
        platform.pre_register_and_update = _adding_flags(platform.pre_register_and_update)
    if not hasattr(vllm.plugins.load_endpoint_plugins, _MARK):
        vllm.plugins.load_endpoint_plugins = _adding_plugin(vllm.plugins.load_endpoint_plugins)
    _publish_public_names()
    if current_platform.is_cpu():
        from vllm.lora.ops.torch_ops import lora_ops
        from vllm.lora.punica_wrapper import punica_cpu

        patch_cpu_lora_kernels(lora_ops, punica_cpu)


def _publish_public_names() -> None:
    from loradrop.worker.engine.public_events import publish_public_names

    publish_public_names()


def _adding_flags(original: Any) -> Any:
    @functools.wraps(original)
    def pre_register_and_update(_platform: Any, parser: Any = None) -> None:
        original(parser)
        if parser is None or _ASKING[0].flag(Process.SERVE) in parser._option_string_actions:
            return
        add_flags(parser)
        is_server = "--middleware" in parser._option_string_actions
        if why_not := environment_fault(os.environ) if is_server else _NO_SERVER:
            _refuse(parser, why_not, variables=is_server)

    setattr(pre_register_and_update, _MARK, True)
    return classmethod(pre_register_and_update)


def _refuse(parser: Any, why: str, *, variables: bool) -> None:
    """Have `parser` refuse the flags that ask for us, and their `variables` if a server would follow them."""

    def refused(_value: str) -> NoReturn:
        raise ArgumentTypeError(why)

    for setting in _ASKING:
        action = parser._option_string_actions[setting.flag(Process.SERVE)]
        action.type = refused
        action.default = os.environ.get(setting.variable) or None if variables else None


def _adding_plugin(original: Any) -> Any:
    @functools.wraps(original)
    def load_endpoint_plugins(supported_tasks: Any = None) -> list[Any]:
        from loradrop.worker.server.plugin import LoradropPlugin

        # Without VLLM_PLUGINS vLLM loads none, and warns about ours though it is about to be loaded.
        plugins = original(supported_tasks) if os.environ.get("VLLM_PLUGINS") is not None else []
        if not any(plugin.name == LoradropPlugin.name for plugin in plugins):
            plugins.append(LoradropPlugin())
        return plugins

    setattr(load_endpoint_plugins, _MARK, True)
    return load_endpoint_plugins
