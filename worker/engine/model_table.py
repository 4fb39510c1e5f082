"""vLLM's table of served models, made to ask us about names it does not know.

This file and `engine` are the only ones that touch vLLM's internals. Overrides are set on the instance, so
vLLM's classes stay as they are. vLLM calls `resolve_lora` at the start of a request for a name that is not in
its table. It looks the name up in the table itself at the start of every request, which is the only event
that shows a request before it is in any list.
"""

import os
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from vllm import envs
from vllm.entrypoints.openai.models.serving import ErrorResponse  # its own place differs between releases
from vllm.lora.request import LoRARequest

from loradrop.catalog.adapter import Reason
from loradrop.worker.engine.early_requests import note_early
from loradrop.worker.engine.finds import Finds
from loradrop.worker.engine.handle import Handle, public_name
from loradrop.worker.engine.served_names import ServedNames
from loradrop.worker.outcomes import Failed, NotServedYet, Rejected, UnknownModel

_Resolve = Callable[[str], Awaitable[Handle]]
_ManualLoad = Callable[..., Awaitable[str]]
_ManualUnload = Callable[[str], Awaitable[str]]
_IsLoaded = Callable[[int], bool]

_ALLOW_UPDATES = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
_KINDS = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.FORBIDDEN: "PermissionDeniedError",
    HTTPStatus.NOT_FOUND: "NotFoundError",
}


def request_of(handle: Handle) -> LoRARequest:
    """Return what stands for `handle` in the engine's requests. Never `load_inplace`."""
    return LoRARequest(
        lora_name=handle.inner_name, lora_int_id=handle.lora_id, lora_path=str(handle.directory)
    )


class ModelTable:
    """Invariant: what vLLM finds under a name has been loaded; answers show the name that was requested."""

    def __init__(self, models: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take over vLLM's OpenAIServingModels, with the `--lora-modules` it has loaded."""
        self._models = models
        self._static_names = set(models.lora_requests)
        self._base_names = frozenset(path.name for path in models.base_model_paths)
        self._finds: Finds[LoRARequest] = Finds()
        self._served = models.lora_requests = ServedNames(models.lora_requests, self._finds, clock)
        self._stock_add_request = models.engine_client.add_request
        self._stock_resolve = models.resolve_lora
        self._stock_unload = models.unload_lora_adapter
        self._other_resolvers = bool(models.lora_resolvers) and envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING
        self._resolve: _Resolve | None = None
        self._load: _ManualLoad | None = None
        self._unload: _ManualUnload | None = None
        self._is_loaded: _IsLoaded | None = None

    @property
    def base_model(self) -> str:
        """The name of the base model in requests."""
        return str(self._models.base_model_paths[0].name)

    @property
    def static_names(self) -> frozenset[str]:
        """The `--lora-modules` vLLM has loaded itself, and not unloaded."""
        return frozenset(self._static_names)

    @property
    def static_count(self) -> int:
        """How many `--lora-modules` vLLM has loaded itself."""
        return len(self._static_names)

    def install(
        self,
        *,
        resolve: _Resolve,
        load: _ManualLoad,
        unload: _ManualUnload,
        is_there: Callable[[str], bool],
        is_loaded: _IsLoaded,
    ) -> None:
        """Answer vLLM's questions with these: what serves a name, and its load and unload routes.

        `is_there` says whether what a name points at can be handed out, `is_loaded` whether the engine has an
        id. vLLM asks only where runtime updates are allowed. Setting the variable now, after the routes were
        made, changes nothing else.
        """
        os.environ[_ALLOW_UPDATES] = "1"
        self._resolve, self._load, self._unload = resolve, load, unload
        self._served.hide_unless(is_there)
        self._is_loaded = is_loaded
        self._models.engine_client.add_request = self._add_request
        self._models.resolve_lora = self._resolve_lora
        self._models.load_lora_adapter = self._load_lora_adapter
        self._models.unload_lora_adapter = self._unload_lora_adapter
        self._models.model_name = self._model_name

    def point(self, handle: Handle) -> None:
        """Let requests for the handle's name use it from now on; it must have been loaded."""
        self._served.point(handle.name, request_of(handle))

    def remove(self, name: str) -> None:
        """Let requests for `name` use nothing from now on."""
        self._served.remove(name)
        self._finds.forget(name)

    def withdraw(self, name: str) -> None:
        """Let new requests for `name` use nothing from now on; those that have found it find it again."""
        self._served.remove(name)

    def found_ids(self) -> frozenset[int]:
        """Return the ids that requests under way have found, started or not."""
        return self._finds.ids()

    def last_touched(self, name: str) -> float | None:
        """Return when (monotonic seconds) a request last asked for `name`, or None."""
        return self._served.last_touched.get(name)

    def is_taken(self, name: str) -> bool:
        """Return whether the base model or one of `--lora-modules` has the name, and was not unloaded."""
        return name in self._static_names or name in self._base_names

    async def stock_cards(self) -> list[dict[str, Any]]:
        """Return vLLM's own cards: the base models and the static modules."""
        cards = (await self._models.show_available_models()).model_dump()["data"]
        return [card for card in cards if card["id"] == public_name(card["id"])]

    async def _resolve_lora(self, name: str) -> LoRARequest | ErrorResponse:
        assert self._resolve is not None  # installed together
        try:
            handle = await self._resolve(name)
        except Rejected as rejected:
            return _error(HTTPStatus.BAD_REQUEST, f"{name}: {rejected.reason}")
        except NotServedYet as early:
            return _early(early)
        except UnknownModel:
            if self._other_resolvers:
                answer: LoRARequest | ErrorResponse = await self._stock_resolve(name)
                return answer
            return _error(HTTPStatus.NOT_FOUND, f"The model `{name}` does not exist.")
        request = request_of(handle)
        self._finds.note(name, request, handle.lora_id)
        return request

    async def _add_request(
        self, request_id: str, *args: Any, lora_request: LoRARequest | None = None, **options: Any
    ) -> Any:
        """Start a request, unless what it is to use has left the engine: that would read it from disk again.

        Raises NotServedYet then: of work that outlived its HTTP request before it started.
        """
        if lora_request is not None and public_name(lora_request.lora_name) != lora_request.lora_name:
            assert self._is_loaded is not None  # installed together
            if not self._is_loaded(lora_request.lora_int_id):
                early = NotServedYet(Reason("unloaded", "The adapter left the engine before it was used."))
                note_early(early)
                raise early
            self._finds.note_id(lora_request.lora_int_id)
        return await self._stock_add_request(request_id, *args, lora_request=lora_request, **options)

    async def _load_lora_adapter(
        self, request: Any, base_model_name: str | None = None
    ) -> ErrorResponse | str:
        assert self._load is not None  # installed together
        fault: ErrorResponse | None = await self._models._check_load_lora_adapter_request(request)
        if fault is not None:
            return fault
        if base_model_name not in {None, self.base_model}:
            return _error(HTTPStatus.BAD_REQUEST, f"The base model here is {self.base_model}.")
        load = self._load(request.lora_name, request.lora_path, in_place=request.load_inplace)
        return await _answered(load)

    async def _unload_lora_adapter(self, request: Any) -> ErrorResponse | str:
        assert self._unload is not None  # installed together
        if request.lora_name in self._static_names:
            answer: ErrorResponse | str = await self._stock_unload(request)
            self._static_names.discard(request.lora_name)
            return answer
        return await _answered(self._unload(request.lora_name))

    def _model_name(self, lora_request: LoRARequest | None = None) -> str:
        if lora_request is None:
            return self.base_model
        return public_name(lora_request.lora_name)


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
        return _early(NotServedYet(error.reason))


def _early(early: NotServedYet) -> ErrorResponse:
    """Return what vLLM's routes pass on: the server's middleware gives the answer its status."""
    note_early(early)
    return _error(HTTPStatus.BAD_REQUEST, str(early.reason))


def _error(status: HTTPStatus, message: str) -> ErrorResponse:
    return ErrorResponse(error={"message": message, "type": _KINDS[status], "code": status.value})
