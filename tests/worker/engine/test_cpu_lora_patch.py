"""Tokens without an adapter get nothing of any adapter, and the others what they got before."""

from types import ModuleType

import pytest
import torch

from loradrop.worker.engine.cpu_lora_patch import patch_cpu_lora_kernels

SLOTS = torch.tensor([0, -1, 1, -1])


@pytest.fixture
def kernels() -> ModuleType:
    """vLLM's CPU kernels, in a module of their own so that nothing else sees the change."""
    from vllm.lora.ops.torch_ops import lora_ops

    module = ModuleType("kernels")
    for name in ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice"):
        kernel = getattr(lora_ops, name)
        setattr(module, name, getattr(kernel, "__wrapped__", kernel))
    return module


def test_a_token_without_an_adapter_is_left_as_it_was(kernels: ModuleType) -> None:
    patch_cpu_lora_kernels(kernels)
    shrunk, expanded, sliced = torch.zeros(4, 3), torch.ones(4, 5), torch.ones(4, 7)

    kernels.bgmv_shrink(torch.ones(4, 5), torch.ones(2, 3, 5), shrunk, SLOTS, 0.5)
    kernels.bgmv_expand(torch.ones(4, 3), torch.ones(2, 5, 3), expanded, SLOTS, add_inputs=True)
    kernels.bgmv_expand_slice(torch.ones(4, 3), torch.ones(2, 5, 3), sliced, SLOTS, 1, 5, add_inputs=True)

    assert shrunk[:, 0].tolist() == [2.5, 0, 2.5, 0]
    assert expanded[:, 0].tolist() == [4, 1, 4, 1]
    assert sliced[:, 1].tolist() == [4, 1, 4, 1]


def test_tokens_with_adapters_get_exactly_what_they_got_before(kernels: ModuleType) -> None:
    inputs, weights = torch.randn(4, 8, dtype=torch.bfloat16), torch.randn(2, 3, 8, dtype=torch.bfloat16)
    slots = torch.tensor([0, 1, 1, 0])
    before, after = torch.zeros(4, 3), torch.zeros(4, 3)
    kernels.bgmv_shrink(inputs, weights, before, slots, 2.0)
    patch_cpu_lora_kernels(kernels)

    kernels.bgmv_shrink(inputs, weights, after, slots, 2.0)

    assert torch.equal(before, after)


def test_doing_it_again_changes_nothing(kernels: ModuleType) -> None:
    patch_cpu_lora_kernels(kernels)
    kernel = kernels.bgmv_shrink
    patch_cpu_lora_kernels(kernels)
    assert kernels.bgmv_shrink is kernel
