"""What must not reach the engine: whatever it would serve wrongly, each named by a reason."""

import math

import pytest

from loradrop.worker.admission.checks import Limits
from tests.worker.models import (
    BASE,
    HIDDEN,
    Q0,
    Q0_A,
    Q0_B,
    Value,
    config,
    fault,
    llama,
    lora,
    reason_of,
    weights,
    without,
)


def changed(name: str, tensor: Value | None = None, **values: object) -> dict[str, Value]:
    tensors = weights(BASE)
    old = tensors[name]
    fields = {"dtype": old.dtype, "shape": old.shape, "largest": old.largest} | values
    tensors[name] = tensor or Value(**fields)  # type: ignore[arg-type]  # fields of a Value
    return tensors


def test_a_rank_above_the_servers_is_refused() -> None:
    assert fault(weights(BASE, rank=32), config(rank=32)) == "rank_too_high"
    assert fault(weights(BASE), config(rank_pattern={"nothing": 17})) == "rank_too_high"


def test_weights_of_another_rank_than_the_configuration_says_are_refused() -> None:
    for rank in (2, 8, 16):
        assert fault(weights(BASE, rank=rank)) == "config_weights_disagree"


def test_each_module_has_the_rank_that_its_own_pattern_says() -> None:
    """Both ranks are the configuration's, each of another module."""
    q, v = (rf".*\.{name}" for name in ("q_proj", "v_proj"))
    swapped = weights(BASE, ("q_proj",)) | weights(BASE, ("v_proj",), rank=8)
    assert fault(swapped, config(rank_pattern={v: 8})) is None
    assert fault(swapped, config(rank_pattern={q: 8})) == "config_weights_disagree"


def test_weights_of_a_larger_or_smaller_model_are_refused() -> None:
    for width in (HIDDEN * 2, HIDDEN // 2):
        assert fault(lora(Q0, (width, width))) == "shape_disagrees"


def test_fewer_layers_than_the_base_model_has_are_refused() -> None:
    assert fault(weights(BASE), base=llama(layers=3)) == "layers_missing"


def test_layers_beyond_the_base_models_are_refused() -> None:
    assert fault(weights(llama(layers=3))) == "module_not_in_base_model"
    beyond = {
        name.replace("layers.0", "layers.7").replace("layers.1", "layers.8"): t
        for name, t in weights(BASE).items()
    }
    assert fault(beyond) == "module_not_in_base_model"


def test_names_under_another_prefix_are_refused() -> None:
    other = {
        name.replace("model.model.layers", "model.transformer.layers"): t for name, t in weights(BASE).items()
    }
    assert fault(other) == "module_not_in_base_model"
    bare = {name.replace("model.model.layers", "model.layers"): t for name, t in weights(BASE).items()}
    assert fault(bare) == "module_not_in_base_model"


def test_many_unknown_modules_are_named_by_a_few() -> None:
    found = reason_of(weights(llama(layers=9, prefix="other.")))
    assert found is not None
    assert found.message.count("other.layers") == 3
    assert "and 15 more" in found.message


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_a_pair_is_refused(side: str) -> None:
    gone = f"lora_{side.lower()}_missing"
    assert fault(without(weights(BASE), f"0.self_attn.q_proj.lora_{side}.weight")) == gone
    assert fault(without(weights(BASE), f"lora_{side}.weight")) == gone


@pytest.mark.parametrize("shape", [(), (4,), (4, HIDDEN, 1)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    assert fault(changed(Q0_A, shape=shape)) == "shape_unsupported"


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL", "int8", "complex64"])
def test_what_would_be_rounded_is_refused(dtype: str) -> None:
    assert fault(changed(Q0_A, dtype=dtype)) == "dtype_unsupported"


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "lora_A.weight",
        "nonsense",
        "",
    ],
)
def test_what_is_no_lora_weight_is_refused(name: str) -> None:
    assert fault(weights(BASE) | {name: Value("F32", (4, 4), 1.0)}) == "tensor_unsupported"


@pytest.mark.parametrize("largest", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(largest: float) -> None:
    for name in (Q0_A, Q0_B):
        assert fault(changed(name, largest=largest)) == "weights_not_finite"


def test_values_that_are_not_finite_in_a_head_saved_whole_are_refused() -> None:
    head = {"base_model.model.score.weight": Value("F32", (3, HIDDEN), math.nan)}
    assert fault(weights(BASE) | head, config(modules_to_save=frozenset({"score"}))) == "weights_not_finite"


def test_values_the_serving_type_cannot_hold_are_refused() -> None:
    half = Limits(max_lora_rank=16, largest_value=65504.0)
    for name in (Q0_A, Q0_B):
        assert fault(changed(name, largest=70_000.0, dtype="F32"), limits=half) == "weights_overflow"
        assert fault(changed(name, largest=65_504.0, dtype="F32"), limits=half) is None


def test_finite_values_that_would_turn_answers_into_nan_are_refused() -> None:
    assert fault(changed(Q0_A, largest=1e18)) == "weights_overflow"


def test_a_base_weight_may_change_by_a_million_at_most() -> None:
    """At rank 4 and alpha 8 a change is at most 2 * 4 times the product of the largest values."""
    for side, other in ((Q0_A, Q0_B), (Q0_B, Q0_A)):
        tensors = changed(side, largest=125_000.0)
        tensors[other] = Value("F32", tensors[other].shape, 1.0)
        assert fault(tensors) is None
        tensors[other] = Value("F32", tensors[other].shape, 1.0001)
        assert fault(tensors) == "weights_overflow"


def test_a_negative_scaling_overflows_as_a_positive_one_does() -> None:
    assert fault(changed(Q0_A, largest=1e18), config(alpha_pattern={"q_proj": -8.0})) == "weights_overflow"


def test_a_file_without_tensors_is_refused() -> None:
    assert fault({}) == "no_tensors"


def test_weights_that_change_nothing_are_refused() -> None:
    for zero in ("lora_A", "lora_B"):
        untrained = {n: Value(t.dtype, t.shape, 0.0 if zero in n else 1.0) for n, t in weights(BASE).items()}
        assert fault(untrained) == "changes_nothing"
