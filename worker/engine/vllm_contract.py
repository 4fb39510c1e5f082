"""What of vLLM this package relies on, and whether a given vLLM has it.

vLLM declares little of this stable, so all of it is written down here: each name, the arguments we
pass or are passed, the fields we read, and what vLLM itself calls that we take the place of. It is compared
with vLLM's source, of which nothing is imported: so the installed vLLM is checked at the start, and any
released one without installing it.

Not here: whether the running server is one we can serve (`engine.require_vllm_contract`), and whether
vLLM still behaves as it did, which the end-to-end tests show.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReliedOn:
    """One class or function, and what of it we use.

    `places` are `module:name`, the first that exists counts: releases keep it in different ones. `fields`
    are attributes or properties of a class. `calls` are its methods, with the parameters we name or are
    given. `takes` are a function's parameters. `uses` are names its body must use, where we rely on what
    it does with them.
    """

    places: tuple[str, ...]
    fields: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


def _on(*places: str, **what: tuple[str, ...]) -> ReliedOn:
    return ReliedOn(places, **what)


_SERVING = "vllm.entrypoints.openai.models.serving"
_LORA = "vllm.entrypoints.serve.lora.protocol"
_CHECKS = "vllm.entrypoints.serve.engine.serving"
_PLUGINS = "vllm.plugins.endpoint_plugins.interface"
_CLI = "vllm.entrypoints.cli.serve"

CONTRACT = (
    # worker/engine/engine.py
    _on(
        "vllm.v1.engine.async_llm:AsyncLLM",
        fields=("vllm_config", "model_config", "output_processor", "logger_manager"),
        calls=("add_lora(lora_request)", "remove_lora(lora_id)", "add_request(lora_request)"),
    ),
    _on("vllm.v1.engine.output_processor:OutputProcessor", fields=("request_states", "lora_states")),
    _on("vllm.v1.engine.output_processor:RequestState", fields=("lora_request",)),
    _on("vllm.config.vllm:VllmConfig", fields=("lora_config", "parallel_config", "kv_transfer_config")),
    _on("vllm.config.parallel:ParallelConfig", fields=("_api_process_rank", "_api_process_count")),
    _on("vllm.config.model:ModelConfig", fields=("model", "revision", "is_multimodal_model")),
    _on("vllm.config.kv_transfer:KVTransferConfig", fields=("kv_connector", "kv_connector_extra_config")),
    _on("vllm.config.lora:LoRAConfig", fields=("max_lora_rank", "max_loras", "max_cpu_loras", "lora_dtype")),
    _on("vllm.lora.request:LoRARequest", fields=("lora_name", "lora_int_id", "lora_path")),
    # worker/engine/public_names.py
    _on(
        "vllm.v1.metrics.stats:LoRARequestStates",
        calls=("_request_update(req_id, lora_name)",),
    ),
    _on("vllm.v1.metrics.loggers:StatLoggerManager", fields=("stat_loggers",)),
    _on("vllm.v1.metrics.loggers:PrometheusStatLogger", fields=("gauge_lora_info",)),
    _on("vllm.v1.metrics.loggers:PrometheusStatLogger.record", uses=("labels", "set_to_current_time")),
    _on("vllm.entrypoints.serve.utils.request_logger:RequestLogger", calls=("log_inputs(lora_request)",)),
    # worker/engine/public_events.py
    _on("vllm.distributed.kv_events:EventPublisherFactory", calls=("create()",)),
    _on("vllm.distributed.kv_events:EventPublisher", calls=("publish(events)",)),
    _on("vllm.distributed.kv_events:KVEventBatch", fields=("events",)),
    _on("vllm.distributed.kv_events:BlockStored", fields=("lora_name", "extra_keys")),
    _on("vllm.v1.core.sched.scheduler:Scheduler.__init__", uses=("EventPublisherFactory", "create")),
    # worker/engine/model_table.py
    _on(
        f"{_SERVING}:OpenAIServingModels",
        fields=("lora_requests", "lora_resolvers", "base_model_paths", "engine_client"),
        calls=(
            "resolve_lora(lora_name)",
            "load_lora_adapter(request, base_model_name)",
            "unload_lora_adapter(request)",
            "model_name(lora_request)",
            "show_available_models()",
            "_check_load_lora_adapter_request(request)",
        ),
    ),
    _on(f"{_SERVING}:BaseModelPath", fields=("name",)),
    _on(f"{_SERVING}:ModelList", fields=("data",)),
    _on(f"{_SERVING}:ErrorResponse", fields=("error",)),
    _on(
        "vllm.entrypoints.serve.engine.protocol:ErrorInfo",
        "vllm.entrypoints.openai.engine.protocol:ErrorInfo",
        fields=("message", "type", "code"),
    ),
    _on(f"{_LORA}:LoadLoRAAdapterRequest", fields=("lora_name", "lora_path", "load_inplace")),
    _on(f"{_LORA}:UnloadLoRAAdapterRequest", fields=("lora_name",)),
    _on(
        f"{_CHECKS}:BaseServing._check_model",
        uses=("lora_requests", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "resolve_lora"),
    ),
    _on(f"{_CHECKS}:BaseServing._maybe_get_adapters", uses=("lora_requests",)),
    # worker/server/plugin.py
    _on(
        f"{_PLUGINS}:EndpointPlugin",
        fields=("name", "required_tasks"),
        calls=("attach_router(app)", "init_state(engine_client, state, args)"),
    ),
    _on(
        f"{_PLUGINS}:attach_endpoint_plugins",
        "vllm.entrypoints.openai.api_server:_attach_endpoint_plugins",
        uses=("load_endpoint_plugins", "attach_router"),
    ),
    _on(
        "vllm.entrypoints.launchers.api_server.app_state:init_app_state",
        "vllm.entrypoints.openai.api_server:init_app_state",
        uses=("openai_serving_models", "init_static_loras"),
    ),
    # worker/server/vllm_hooks.py
    _on("vllm.plugins:load_endpoint_plugins", takes=("supported_tasks",)),
    _on("vllm.platforms.interface:Platform", calls=("pre_register_and_update(parser)",)),
    _on(
        "vllm.engine.arg_utils:AsyncEngineArgs.add_cli_args",
        uses=("load_general_plugins", "pre_register_and_update"),
    ),
    # worker/__main__.py
    _on(f"{_CLI}:ServeSubcommand", calls=("validate(args)", "cmd(args)")),
    _on(f"{_CLI}:make_arg_parser", takes=("parser",)),
    _on(f"{_CLI}:FlexibleArgumentParser"),
    _on("vllm.entrypoints.serve.utils.api_utils:cli_env_setup"),
)


def differences(packages: Path, contract: Sequence[ReliedOn] = CONTRACT) -> list[str]:
    """Return what `contract` asks for and the vLLM in `packages`/vllm lacks; empty where it has all."""
    source = _Source(packages)
    return [difference for item in contract for difference in _differences(item, source)]


def _differences(item: ReliedOn, source: "_Source") -> Iterator[str]:
    node = next(filter(None, map(source.find, item.places)), None)
    name = item.places[0].replace(":", ".")
    if node is None:
        yield name
        return
    methods = _functions(node)
    names = _fields(node) | methods.keys()
    yield from (f"{name}.{field}" for field in item.fields if field not in names)
    yield from (f"{name}.{call}" for call in item.calls if not _answers(methods, call))
    yield from (f"{name}({taken})" for taken in item.takes if taken not in _parameters(node))
    yield from (f"{name} using {used}" for used in item.uses if used not in _used(node))


class _Source:
    """vLLM's source files, each parsed once."""

    def __init__(self, packages: Path) -> None:
        self._packages = packages
        self._modules: dict[str, ast.Module | None] = {}

    def find(self, place: str) -> ast.AST | None:
        """Return what `module:name` defines, or imports from elsewhere in vLLM; None where neither."""
        module, _, name = place.partition(":")
        node: ast.AST | None = self._parsed(module)
        for part in name.split("."):
            if node is None:
                return None
            node = _functions(node).get(part) or _classes(node).get(part) or self._imported(node, part)
        return node

    def _imported(self, module: ast.AST, name: str) -> ast.AST | None:
        for node in ast.iter_child_nodes(module):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.find(f"{node.module}:{alias.name}")
        return None

    def _parsed(self, module: str) -> ast.Module | None:
        if module not in self._modules:
            path = self._packages.joinpath(*module.split("."))
            files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
            self._modules[module] = ast.parse(files[0].read_bytes()) if files else None
        return self._modules[module]


def _functions(parent: ast.AST) -> dict[str, ast.AST]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name: node for node in ast.iter_child_nodes(parent) if isinstance(node, kinds)}


def _classes(parent: ast.AST) -> dict[str, ast.AST]:
    return {node.name: node for node in ast.iter_child_nodes(parent) if isinstance(node, ast.ClassDef)}


def _fields(owner: ast.AST) -> set[str]:
    """Return what a class declares in its body or sets on `self`."""
    names = set()
    for node in ast.walk(owner):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def _answers(methods: dict[str, ast.AST], call: str) -> bool:
    name, _, wanted = call.removesuffix(")").partition("(")
    if name not in methods:
        return False
    return set(filter(None, wanted.split(", "))) <= _parameters(methods[name])


def _parameters(function: ast.AST) -> set[str]:
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    arguments = function.args
    return {node.arg for node in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}


def _used(function: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                names.add(name)
    return names
