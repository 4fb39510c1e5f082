"""Patches the CPU LoRA kernels: index -1 gets no delta (vllm-project/vllm#48421).

A token without an adapter has slot index -1. vLLM's GPU kernels skip it; its CPU kernels index the last slot,
so a request for the base model is answered with the weights of the adapter there, as soon as one request of
the same batch uses any (measured on 0.32). Here the inputs of such tokens are replaced by zeros, which makes
their delta zero. Once vLLM does so itself, this changes nothing.
"""

import functools
from types import ModuleType
from typing import Any

import torch

_KERNELS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
_MARK = "_loradrop"


def patch_cpu_lora_kernels(*modules: ModuleType) -> None:
    """Patch the kernels that `modules` define or have imported; idempotent."""
    for module in modules:
        for name in _KERNELS:
            kernel = getattr(module, name, None)
            if kernel is not None and not hasattr(kernel, _MARK):
                setattr(module, name, _patched(kernel))


def _patched(kernel: Any) -> Any:
    @functools.wraps(kernel)
    def patched(
        inputs: Any, weights: Any, output_tensor: Any, lora_indices_tensor: Any, *rest: Any, **options: Any
    ) -> None:
        has_adapter = (lora_indices_tensor >= 0).unsqueeze(1)
        kernel(
            torch.where(has_adapter, inputs, 0), weights, output_tensor, lora_indices_tensor, *rest, **options
        )

    setattr(patched, _MARK, True)
    return patched
