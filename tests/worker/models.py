"""Base models and adapters for admission: shapes and numbers, no files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loradrop.catalog.adapter import Reason
from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.tensors import Tensor
from loradrop.worker.admission.base_fit import BaseModel
from loradrop.worker.admission.checks import Limits, Weights, check_adapter

LIMITS = Limits(max_lora_rank=16, largest_value=3.4e38)
HIDDEN, WIDE, VOCABULARY = 32, 64, 100
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (16, HIDDEN),
    "self_attn.v_proj": (16, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}
MODULES = tuple(name.rpartition(".")[2] for name in SHAPES)


@dataclass(frozen=True)
class Value:
    """A tensor of an adapter, and the largest magnitude in it."""

    dtype: str
    shape: tuple[int, ...]
    largest: float


def llama(*, layers: int = 2, checkpoint_layers: int | None = None, prefix: str = "model.") -> BaseModel:
    """Return a model of `layers` layers; its checkpoint may hold more."""
    shapes = {
        f"{prefix}layers.{layer}.{module}": shape
        for layer in range(checkpoint_layers or layers)
        for module, shape in SHAPES.items()
    }
    return BaseModel(
        {**shapes, f"{prefix}embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN)}, layers
    )


def config(**changes: Any) -> LoraConfig:
    return LoraConfig(
        **({"rank": 4, "alpha": 8.0, "target_modules": frozenset({"q_proj", "v_proj"})} | changes)
    )


def lora(
    module: str, shape: tuple[int, int], *, rank: int = 4, largest: float = 0.5, dtype: str = "F32"
) -> dict[str, Value]:
    """Return the two tensors for a module of `shape`."""
    return {
        f"base_model.model.{module}.lora_A.weight": Value(dtype, (rank, shape[1]), largest),
        f"base_model.model.{module}.lora_B.weight": Value(dtype, (shape[0], rank), largest),
    }


def weights(
    base: BaseModel,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    *,
    rank: int = 4,
    layers: int | None = None,
) -> dict[str, Value]:
    """Return what PEFT saves for `targets` of `base`."""
    tensors: dict[str, Value] = {}
    most = base.layers if layers is None else layers
    for name, shape in base.shapes.items():
        parts = name.split(".")
        layer = next((int(part) for part in parts if part.isdigit()), 0)
        if parts[-1] in targets and (most is None or layer < most):
            tensors |= lora(name, shape, rank=rank)
    return tensors


def without(tensors: Mapping[str, Value], *ends: str) -> dict[str, Value]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(ends)}


BASE = llama()
Q0 = "model.layers.0.self_attn.q_proj"
Q0_A, Q0_B = (f"base_model.model.{Q0}.lora_{side}.weight" for side in "AB")


def fault(
    tensors: Mapping[str, Value],
    adapter: LoraConfig | None = None,
    base: BaseModel | None = BASE,
    limits: Limits = LIMITS,
) -> str | None:
    """Return the code of what is wrong with an adapter, or None."""
    found = reason_of(tensors, adapter, base, limits)
    return found.code if found else None


def reason_of(
    tensors: Mapping[str, Value],
    adapter: LoraConfig | None = None,
    base: BaseModel | None = BASE,
    limits: Limits = LIMITS,
) -> Reason | None:
    weights = Weights(
        [Tensor(name, value.dtype, value.shape) for name, value in tensors.items()],
        {name: value.largest for name, value in tensors.items()},
    )
    try:
        check_adapter(adapter or config(), weights, base, limits)
    except Rejected as rejected:
        assert rejected.reason.message.endswith((".", ":")), "a reason is a sentence"
        return rejected.reason
    return None
