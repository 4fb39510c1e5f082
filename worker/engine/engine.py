"""The engine: loads, unloads, and the adapters in use. With `model_table`, the only file that knows vLLM.

The rules kept here, each a measured way to crash or corrupt a stock vLLM:

* a failed load may leave the id registered with the wrong weights, so it is removed at once, and the
  reconciler never uses that id again;
* never `load_inplace`: an update is another id at another path.

What we rely on (`vllm_contract`) is checked at the start: a vLLM that differs is refused with a sentence,
before any request can fail on it.
"""

import logging
from pathlib import Path
from typing import Any

import torch
import vllm
import vllm.envs
from huggingface_hub import try_to_load_from_cache

from loradrop.worker.admission.checks import Limits
from loradrop.worker.engine.handle import Handle, without_inner_names
from loradrop.worker.engine.kv_connectors import doubtful_connectors
from loradrop.worker.engine.model_table import request_of
from loradrop.worker.engine.shared_ids import SharedIds
from loradrop.worker.engine.vllm_contract import differences
from loradrop.worker.outcomes import Failed, Rejected

_log = logging.getLogger(__name__)

_PACKAGES = Path(vllm.__file__).parents[1]

# What in an engine's error says that the adapter is not to blame.
_TRANSIENT = (
    "out of memory",
    "OutOfMemory",
    "No space left",
    "Too many open files",
    "EngineDead",
    "timed out",
)


class Engine:
    """One API process's way into its engine."""

    def __init__(self, client: Any, *, static_count: int, ids: SharedIds | None = None) -> None:
        """Use vLLM's engine client; `static_count` of its places are taken by `--lora-modules`."""
        self._client = client
        self._static_count = static_count
        self._ids = ids or SharedIds.of_server(self._process_count)

    @property
    def vllm_version(self) -> str:
        """The installed vLLM's version."""
        return str(vllm.__version__)

    @property
    def limits(self) -> Limits:
        """What adapters must fit into."""
        config = self._lora_config
        return Limits(int(config.max_lora_rank), float(torch.finfo(config.lora_dtype).max))

    @property
    def capacity(self) -> int:
        """How many adapters this process may have in the engine, `--lora-modules` not counted.

        API processes load different ones: each has its share of what the engine keeps in memory.
        """
        free = int(self._lora_config.max_cpu_loras) - self._static_count
        return max(1, free // self._process_count)

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
        return max(0, int(self._parallel_config._api_process_rank))

    @property
    def counts_nans(self) -> bool:
        """Whether vLLM looks for NaN in logits and counts the requests that met any."""
        return bool(vllm.envs.VLLM_COMPUTE_NANS_IN_LOGITS)

    @property
    def doubtful_connectors(self) -> list[str]:
        """The KV connectors in use that may answer one adapter from another's cache."""
        return doubtful_connectors(self._client.vllm_config.kv_transfer_config)

    def checkpoint_directory(self) -> Path | None:
        """Return where the base model's checkpoint lies on this machine, or None."""
        model, revision = str(self._client.model_config.model), self._client.model_config.revision
        if Path(model).is_dir():
            return Path(model)
        try:
            config = try_to_load_from_cache(model, "config.json", revision=revision)
        except ValueError:
            return None  # not a name the hub could have: an object store's, say
        return Path(config).parent if isinstance(config, str) else None

    async def load(self, handle: Handle) -> None:
        """Load `handle`. Raises Rejected, or Failed where another try may work; nothing is left behind."""
        await self._ids.take(handle.lora_id)
        try:
            if not await self._client.add_lora(request_of(handle)):
                raise Rejected("engine_refused", "The engine refused the adapter without a reason.")
        except Exception as error:
            await self._clean_up(handle)
            raise _outcome(error) from error
        self._ids.share(handle.lora_id)

    async def unload(self, handle: Handle) -> None:
        """Free the engine's place, unless another API process uses it; here nothing may any more."""
        try:
            if self._ids.give_up(handle.lora_id):
                await self._client.remove_lora(handle.lora_id)
        finally:
            self._ids.release(handle.lora_id)

    def ids_in_use(self) -> frozenset[int]:
        """Return the ids that requests of this process are using, waiting ones included."""
        states = self._client.output_processor.request_states.values()
        return frozenset(state.lora_request.lora_int_id for state in states if state.lora_request is not None)

    def is_idle(self) -> bool:
        """Return whether no request of this process is under way."""
        return not self._client.output_processor.request_states

    @property
    def _lora_config(self) -> Any:
        return self._client.vllm_config.lora_config

    @property
    def _parallel_config(self) -> Any:
        return self._client.vllm_config.parallel_config

    @property
    def _process_count(self) -> int:
        return int(self._parallel_config._api_process_count)

    async def _clean_up(self, handle: Handle) -> None:
        try:
            await self.unload(handle)
        except Exception as error:  # noqa: BLE001 - the load's own error is the one to report
            _log.warning("clean-up after a failed load failed name=%s error=%s", handle.name, error)


def require_vllm_contract(client: Any, *, packages: Path = _PACKAGES) -> None:
    """Return if LoRA is on and the vLLM in `packages` has all we rely on.

    Raises RuntimeError that says what differs.
    """
    missing = differences(packages)
    if missing:
        raise RuntimeError(
            f"vLLM {vllm.__version__} lacks what loradrop relies on: {', '.join(missing)}. Use a version "
            "loradrop's README lists."
        )
    if client.vllm_config.lora_config is None:
        raise RuntimeError("LoRA is off. Start the server with --enable-lora, or without --lora-dir-prefix.")


def _outcome(error: Exception) -> Rejected | Failed:
    if isinstance(error, Rejected):
        return error
    text = without_inner_names(str(error) or type(error).__name__)
    text = text.removeprefix("Call to add_lora method failed: ")
    if any(sign in text or sign in type(error).__name__ for sign in _TRANSIENT):
        return Failed("engine_failed", f"The engine could not load it this time: {text}")
    return Rejected("engine_refused", f"The engine refused it: {text}")
