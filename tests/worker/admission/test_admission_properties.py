"""For any base model: its adapters are admitted, and one wrong tensor is enough to be refused."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.lora.config import LoraConfig
from loradrop.worker.admission.base_fit import BaseModel
from tests.worker.models import Value, fault, lora

NAMES = ["q_proj", "k_proj", "up_proj", "c_attn"]
Adapter = tuple[LoraConfig, dict[str, Value], BaseModel]


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    """Any base model, and a sound adapter for some of its modules, one perhaps with a rank of its own."""
    modules = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    widths = {module: draw(st.tuples(st.integers(20, 60), st.integers(20, 60))) for module in modules}
    layers = draw(st.integers(1, 3))
    layer_of = draw(st.sampled_from(["model.layers", "transformer.h", "gpt.blocks"]))
    base = BaseModel(
        {
            f"{layer_of}.{layer}.attn.{module}": widths[module]
            for layer in range(layers)
            for module in modules
        },
        layers,
    )
    targets = draw(st.lists(st.sampled_from(modules), min_size=1, unique=True))
    rank, special = draw(st.integers(1, 16)), draw(st.integers(1, 16))
    pattern = {draw(st.sampled_from(targets)): special} if draw(st.booleans()) else {}
    tensors: dict[str, Value] = {}
    for name, shape in base.shapes.items():
        module = name.rpartition(".")[2]
        if module in targets:
            tensors |= lora(name, shape, rank=pattern.get(module, rank), largest=draw(st.floats(1e-6, 10)))
    adapter = LoraConfig(
        rank=rank,
        alpha=draw(st.floats(0.1, 64)),
        rslora=draw(st.booleans()),
        rank_pattern=pattern,
        target_modules=frozenset(targets),
    )
    return adapter, tensors, base


@given(adapters())
def test_any_sound_adapter_is_admitted(adapter: Adapter) -> None:
    settings, tensors, base = adapter
    assert fault(tensors, settings, base) is None


def not_a_number(tensor: Value) -> Value:
    return Value(tensor.dtype, tensor.shape, math.nan)


def infinite(tensor: Value) -> Value:
    return Value(tensor.dtype, tensor.shape, math.inf)


def enormous(tensor: Value) -> Value:
    return Value(tensor.dtype, tensor.shape, 1e30)


def whole_numbers(tensor: Value) -> Value:
    return Value("I8", tensor.shape, tensor.largest)


def flat(tensor: Value) -> Value:
    return Value(tensor.dtype, (tensor.shape[0] * tensor.shape[1],), tensor.largest)


def stacked(tensor: Value) -> Value:
    return Value(tensor.dtype, (1, *tensor.shape), tensor.largest)


def of_another_rank(tensor: Value) -> Value:
    rank = min(tensor.shape)
    return Value(
        tensor.dtype, tuple(rank + 1 if side == rank else side for side in tensor.shape), tensor.largest
    )


def of_a_wider_model(tensor: Value) -> Value:
    rank = min(tensor.shape)
    return Value(
        tensor.dtype, tuple(side if side == rank else 2 * side + 61 for side in tensor.shape), tensor.largest
    )


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (not_a_number, "weights_not_finite"),
        (infinite, "weights_not_finite"),
        (enormous, "weights_overflow"),
        (whole_numbers, "dtype_unsupported"),
        (flat, "shape_unsupported"),
        (stacked, "shape_unsupported"),
        (of_another_rank, "config_weights_disagree"),
        (of_a_wider_model, "shape_disagrees"),
    ],
)
@given(adapter=adapters(), data=st.data())
def test_one_spoilt_tensor_is_enough(
    spoil: Callable[[Value], Value], code: str, adapter: Adapter, data: st.DataObject
) -> None:
    settings, tensors, base = adapter
    name = data.draw(st.sampled_from(sorted(tensors)))
    assert fault(tensors | {name: spoil(tensors[name])}, settings, base) == code


@given(adapter=adapters(), data=st.data())
def test_one_missing_tensor_is_enough(adapter: Adapter, data: st.DataObject) -> None:
    settings, tensors, base = adapter
    del tensors[data.draw(st.sampled_from(sorted(tensors)))]
    assert fault(tensors, settings, base) in {"lora_a_missing", "lora_b_missing"}


@given(adapter=adapters(), data=st.data())
def test_one_missing_or_misnamed_module_is_enough(adapter: Adapter, data: st.DataObject) -> None:
    settings, tensors, base = adapter
    stem = data.draw(st.sampled_from(sorted(tensors))).rpartition(".lora_")[0]
    pair = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"{stem}.lora_")}
    misnamed = {name.replace(".attn.", ".attention."): tensor for name, tensor in pair.items()}
    assert fault(tensors, settings, base) == ("layers_missing" if tensors else "no_tensors")
    assert fault(tensors | misnamed, settings, base) == "module_not_in_base_model"
