"""The only place that touches vLLM's internals, so that everything else can be read without knowing them.

What it relies on is listed in `require_vllm_contract`, which refuses to start on a vLLM that differs.
The rules it keeps, each a measured way to crash or corrupt a stock vLLM:

* `lora_requests` only ever holds what `add_lora` has loaded;
* an id is 63 bits of a digest of name, revision and attempt: the same in every API process, and never
  used again after a failed load;
* inside the engine an adapter is called `name@revision`: two revisions in flight under one name kill it.
  People see `name`;
* never `load_inplace`: an update is another id at another path.
"""

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch
import vllm
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.lora.request import LoRARequest

from worker.admission import Limits
from worker.handle import Handle
from worker.outcomes import Failed, Rejected, UnknownModel

_log = logging.getLogger("loradrop.worker.engine")

# What in an engine's error says that the adapter is not to blame.
_TRANSIENT = (
    "out of memory",
    "OutOfMemory",
    "No space left",
    "Too many open files",
    "EngineDead",
    "timed out",
)


Resolve = Callable[[str], Awaitable[Handle]]
LoadByHand = Callable[[str, str, bool], Awaitable[str]]
UnloadByHand = Callable[[str], Awaitable[str]]


class _Served(dict[str, LoRARequest]):
    """vLLM's table of served adapters, which remembers when each name was last asked for.

    vLLM looks a name up here at the start of every request: the only moment to see a request that is in
    no list yet.
    """

    def __init__(self, served: dict[str, LoRARequest]) -> None:
        """Take over what vLLM has loaded already."""
        super().__init__(served)
        self.last_touched: dict[str, float] = {}

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is served, and note that it was asked for."""
        served = super().__contains__(name)
        if served:
            self.last_touched[str(name)] = asyncio.get_running_loop().time()
        return served

    def pop_name(self, name: str) -> None:
        """Forget `name`."""
        self.pop(name, None)
        self.last_touched.pop(name, None)


class Engine:
    """One API process's way into its engine. Keeps true: the rules in the module's docstring."""

    def __init__(self, client: Any, models: OpenAIServingModels) -> None:
        """Use vLLM's engine client and its table of served models; raises RuntimeError (see below)."""
        require_vllm_contract(client, models)
        self._client = client
        self._models = models
        self._requests: dict[int, LoRARequest] = {}
        self._names: dict[str, str] = {}
        self._static_names = frozenset(models.lora_requests)
        self._served = models.lora_requests = _Served(models.lora_requests)
        self._stock_resolve = models.resolve_lora
        self._stock_unload = models.unload_lora_adapter

    @property
    def vllm_version(self) -> str:
        """The installed vLLM's version."""
        return str(vllm.__version__)

    @property
    def base_model(self) -> str:
        """The name of the base model as people ask for it."""
        return str(self._models.base_model_paths[0].name)

    @property
    def limits(self) -> Limits:
        """What adapters must fit into."""
        config = self._lora_config
        largest = float(torch.finfo(config.lora_dtype).max)
        return Limits(int(config.max_lora_rank), largest)

    @property
    def capacity(self) -> int:
        """How many adapters the engine keeps in memory, `--lora-modules` not counted."""
        return max(1, int(self._lora_config.max_cpu_loras) - len(self._static_names))

    @property
    def max_loras(self) -> int:
        """How many adapters one batch can use."""
        return int(self._lora_config.max_loras)

    @property
    def renames_modules(self) -> bool:
        """Whether vLLM maps this model's module names to others, as it does for multimodal ones."""
        return bool(self._client.model_config.is_multimodal_model)

    @property
    def process_rank(self) -> int:
        """Which of the server's API processes this is, from 0."""
        return max(0, int(self._client.vllm_config.parallel_config._api_process_rank))  # noqa: SLF001 - no public name

    def is_taken(self, name: str) -> bool:
        """Return whether the base model or one of `--lora-modules` has the name."""
        return name in self._static_names or bool(self._models.is_base_model(name))

    def checkpoint_directory(self) -> Path | None:
        """Return where the base model's checkpoint lies on this machine, or None."""
        directory = Path(self._client.model_config.model)
        if directory.is_dir():
            return directory
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only for models from the hub

        revision = self._client.model_config.revision
        config = try_to_load_from_cache(
            str(self._client.model_config.model), "config.json", revision=revision
        )
        return Path(config).parent if isinstance(config, str) else None

    async def load(self, handle: Handle) -> None:
        """Load `handle` into the engine. Raises Rejected, or Failed where another try may work."""
        request = LoRARequest(
            lora_name=handle.inner_name,
            lora_int_id=handle.lora_id,
            lora_path=str(handle.directory),
        )
        try:
            accepted = await self._client.add_lora(request)
        except Exception as error:
            await self._clean_up(handle)
            raise _outcome(error) from error
        if not accepted:
            await self._clean_up(handle)
            raise Rejected("engine_refused", "The engine refused the adapter without a reason.")
        self._requests[handle.lora_id] = request
        self._names[handle.inner_name] = handle.name

    async def unload(self, handle: Handle) -> None:
        """Free the engine's slot; nothing may point at the handle any more."""
        self._requests.pop(handle.lora_id, None)
        await self._client.remove_lora(handle.lora_id)

    def point(self, handle: Handle) -> None:
        """Let requests for the handle's name use it from now on; it must have been loaded."""
        self._served[handle.name] = self._requests[handle.lora_id]

    def withdraw(self, name: str) -> None:
        """Let requests for `name` use nothing from now on."""
        self._served.pop_name(name)

    def last_touched(self, name: str) -> float | None:
        """Return when (event loop time) a request last asked for `name`, or None."""
        return self._served.last_touched.get(name)

    def ids_in_use(self) -> frozenset[int]:
        """Return the ids that requests of this process are using, waiting ones included."""
        states = self._client.output_processor.request_states.values()
        return frozenset(state.lora_request.lora_int_id for state in states if state.lora_request is not None)

    def is_idle(self) -> bool:
        """Return whether no request of this process is under way."""
        return not self._client.output_processor.request_states

    def install(self, resolve: Resolve, load_by_hand: LoadByHand, unload_by_hand: UnloadByHand) -> None:
        """Make vLLM ask us about every model name it does not know, and for its load and unload routes.

        vLLM asks only where runtime updates are allowed; setting the variable here, after the routes were
        made, changes nothing else.
        """
        allowed_by_user = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0") not in {"", "0"}
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"

        async def resolve_lora(name: str) -> LoRARequest | ErrorResponse:
            try:
                return self._requests[(await resolve(name)).lora_id]
            except Rejected as rejected:
                return _error(HTTPStatus.BAD_REQUEST, f"{name}: {rejected.reason}")
            except UnknownModel:
                if allowed_by_user and self._models.lora_resolvers:
                    return await self._stock_resolve(name)
                return _error(HTTPStatus.NOT_FOUND, f"The model `{name}` does not exist.")

        async def load_lora_adapter(request: Any, base_model_name: str | None = None) -> ErrorResponse | str:
            fault = await self._models._check_load_lora_adapter_request(request)  # noqa: SLF001 - vLLM's own checks
            if fault is not None:
                return fault
            return await _answered(load_by_hand(request.lora_name, request.lora_path, request.load_inplace))

        async def unload_lora_adapter(request: Any) -> ErrorResponse | str:
            if request.lora_name in self._static_names:
                return await self._stock_unload(request)
            return await _answered(unload_by_hand(request.lora_name))

        def model_name(lora_request: LoRARequest | None = None) -> str:
            if lora_request is None:
                return self.base_model
            inner_name: str = lora_request.lora_name
            return self._names.get(inner_name, inner_name)

        overrides: dict[str, Any] = {
            "resolve_lora": resolve_lora,
            "load_lora_adapter": load_lora_adapter,
            "unload_lora_adapter": unload_lora_adapter,
            "model_name": model_name,
        }
        for name, override in overrides.items():
            setattr(self._models, name, override)

    async def base_cards(self) -> list[dict[str, Any]]:
        """Return vLLM's own cards: the base models and the static modules."""
        cards = (await self._models.show_available_models()).model_dump()["data"]
        return [card for card in cards if card["id"] not in self._names]

    @property
    def _lora_config(self) -> Any:
        return self._client.vllm_config.lora_config

    async def _clean_up(self, handle: Handle) -> None:
        try:
            await self._client.remove_lora(handle.lora_id)
        except Exception as error:  # noqa: BLE001 - the load's own error is the one to report
            _log.warning("clean-up after a failed load failed name=%s error=%s", handle.name, error)


def require_vllm_contract(client: Any, models: Any) -> None:
    """Return if this vLLM has all we rely on; raises RuntimeError that names what differs."""
    missing = [
        f"{owner}.{name}"
        for owner, thing, names in (
            (
                "engine client",
                client,
                ("add_lora", "remove_lora", "vllm_config", "model_config", "output_processor"),
            ),
            (
                "OpenAIServingModels",
                models,
                (
                    *("resolve_lora", "load_lora_adapter", "unload_lora_adapter", "model_name"),
                    *("lora_requests", "lora_resolvers", "base_model_paths", "is_base_model"),
                    *("show_available_models", "_check_load_lora_adapter_request"),
                ),
            ),
        )
        for name in names
        if not hasattr(thing, name)
    ]
    if not hasattr(getattr(client, "output_processor", None), "request_states"):
        missing.append("output_processor.request_states")
    if client.vllm_config.lora_config is None:
        raise RuntimeError("LoRA is off. Start the server with --enable-lora, or without --lora-dir-prefix.")
    parameters = inspect.signature(LoRARequest).parameters
    missing += [f"LoRARequest.{n}" for n in ("lora_name", "lora_int_id", "lora_path") if n not in parameters]
    if missing:
        raise RuntimeError(
            f"This vLLM lacks {', '.join(missing)}, which loradrop relies on. Use a version the README lists."
        )


def _outcome(error: Exception) -> Rejected | Failed:
    text = str(error) or type(error).__name__
    text = text.removeprefix("Call to add_lora method failed: ")
    if any(sign in text or sign in type(error).__name__ for sign in _TRANSIENT):
        return Failed("engine_failed", f"The engine could not load it this time: {text}")
    return Rejected("engine_refused", f"The engine refused it: {text}")


def _error(status: HTTPStatus, message: str) -> ErrorResponse:
    kinds = {HTTPStatus.NOT_FOUND: "NotFoundError", HTTPStatus.FORBIDDEN: "PermissionDeniedError"}
    return ErrorResponse(
        error=ErrorInfo(message=message, type=kinds.get(status, "BadRequestError"), code=status.value)
    )


async def _answered(work: Awaitable[str]) -> ErrorResponse | str:
    """Return what `work` says, its outcomes as vLLM's error bodies."""
    try:
        return await work
    except UnknownModel as error:
        return _error(HTTPStatus.NOT_FOUND, str(error))
    except PermissionError as error:
        return _error(HTTPStatus.FORBIDDEN, str(error))
    except Rejected as error:
        return _error(HTTPStatus.BAD_REQUEST, str(error.reason))
    except Failed as error:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error.reason))
