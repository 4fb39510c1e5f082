"""What vLLM gives a worker, without its engine: the real table of models over a client that can be scripted.

Import this before anything that imports vLLM: what its own imports are warned of is not ours to mend.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from vllm.config import KVTransferConfig
    from vllm.entrypoints.openai.models.protocol import BaseModelPath
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse
    from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry
    from vllm.v1.metrics.stats import LoRARequestStates

    from loradrop.worker.engine.model_table import ModelTable

__all__ = [
    "ErrorResponse",
    "FakeClient",
    "KVTransferConfig",
    "LoRARequest",
    "LoRAResolver",
    "LoRAResolverRegistry",
    "LoadLoRAAdapterRequest",
    "OpenAIServingModels",
    "UnloadLoRAAdapterRequest",
    "model_table",
    "serving_models",
]


class FakeClient:
    """Stands for vLLM's engine client: as much of it as its own table of models and ours touch.

    `refusals` are what the next loads raise (or return, where it is no exception).
    """

    def __init__(self, *, model: str = "/models/tiny", max_cpu_loras: int = 8) -> None:
        self.model_config = SimpleNamespace(
            model=model, revision=None, max_model_len=512, is_multimodal_model=False
        )
        self.vllm_config = SimpleNamespace(
            lora_config=SimpleNamespace(
                max_lora_rank=8, max_loras=2, max_cpu_loras=max_cpu_loras, lora_dtype=torch.bfloat16
            ),
            parallel_config=SimpleNamespace(_api_process_rank=0, _api_process_count=1),
            kv_transfer_config=None,
        )
        self.output_processor = SimpleNamespace(request_states={}, lora_states=LoRARequestStates())
        self.logger_manager = None
        self.renderer = self.input_processor = None
        self.refusals: list[Any] = []
        self.loaded: dict[int, LoRARequest] = {}
        self.removed: list[int] = []
        self.remove_error: Exception | None = None

    async def add_lora(self, request: LoRARequest) -> bool:
        outcome = self.refusals.pop(0) if self.refusals else True
        if isinstance(outcome, Exception):
            raise outcome
        if outcome:
            self.loaded[request.lora_int_id] = request
        return bool(outcome)

    async def remove_lora(self, lora_id: int) -> bool:
        self.removed.append(lora_id)
        if self.remove_error is not None:
            raise self.remove_error
        return self.loaded.pop(lora_id, None) is not None

    async def add_request(
        self, request_id: str, *_args: Any, lora_request: LoRARequest | None = None, **_options: Any
    ) -> None:
        self.start_request(request_id, lora_request)

    def start_request(self, request_id: str, request: LoRARequest | None) -> None:
        self.output_processor.request_states[request_id] = SimpleNamespace(lora_request=request)


def serving_models(client: FakeClient, *static: str) -> OpenAIServingModels:
    """Return vLLM's own table of models, with the static modules `static` loaded."""
    models = OpenAIServingModels(
        client, [BaseModelPath("tiny", "/models/tiny"), BaseModelPath("alias", "/models/tiny")]
    )
    for number, name in enumerate(static, start=1):
        models.lora_requests[name] = LoRARequest(name, number, f"/static/{name}")
    return models


def model_table(client: FakeClient, *static: str) -> ModelTable:
    return ModelTable(serving_models(client, *static))
