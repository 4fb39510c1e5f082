"""Keeps adapters away from requests for the base model, where vLLM's CPU kernels do not.

A token without an adapter has slot -1. The kernels for GPUs skip it; those for CPUs take it for the last
slot, so that a base model's request is answered with the weights of whichever adapter is there, as soon
as one request of the same batch uses any (measured on 0.32; vllm-project/vllm#48421). Here the inputs of such
tokens are made zero on the way in, which makes what is added for them zero. Once vLLM does so itself,
this changes nothing.
"""

import functools
from types import ModuleType
from typing import Any

import torch

_KERNELS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
_MARK = "_loradrop"


def leave_base_tokens_alone(*modules: ModuleType) -> None:
    """Replace the CPU kernels that `modules` define or have imported; doing it again changes nothing."""
    for module in modules:
        for name in _KERNELS:
            kernel = getattr(module, name, None)
            if kernel is not None and not hasattr(kernel, _MARK):
                setattr(module, name, _sparing(kernel))


def _sparing(kernel: Any) -> Any:
    @functools.wraps(kernel)
    def spared(
        inputs: Any, weights: Any, output_tensor: Any, lora_indices_tensor: Any, *rest: Any, **options: Any
    ) -> None:
        has_adapter = (lora_indices_tensor >= 0).unsqueeze(1)
        kernel(
            torch.where(has_adapter, inputs, 0), weights, output_tensor, lora_indices_tensor, *rest, **options
        )

    setattr(spared, _MARK, True)
    return spared
