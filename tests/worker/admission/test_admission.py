"""What may reach the engine: everything it would serve rightly."""

import pytest

from loradrop.worker.admission.base_fit import BaseModel
from loradrop.worker.admission.scaling import scalings
from tests.worker.models import (
    BASE,
    HIDDEN,
    MODULES,
    Q0,
    Q0_B,
    SHAPES,
    VOCABULARY,
    WIDE,
    Value,
    config,
    fault,
    llama,
    lora,
    weights,
    without,
)


def test_a_plain_adapter_is_admitted() -> None:
    assert fault(weights(BASE)) is None


def test_an_adapter_for_every_module_is_admitted() -> None:
    assert fault(weights(BASE, MODULES), config(target_modules=frozenset(MODULES))) is None


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_every_floating_type_is_admitted(dtype: str) -> None:
    assert fault(lora(Q0, SHAPES["self_attn.q_proj"], dtype=dtype), config(layers_chosen=True)) is None


def test_names_without_pefts_prefix_are_admitted() -> None:
    assert fault({n.removeprefix("base_model.model."): t for n, t in weights(BASE).items()}) is None


@pytest.mark.parametrize(
    "pattern", ["v_proj", r".*\.v_proj", "self_attn.v_proj", r"layers\.\d+\.self_attn\.v_proj"]
)
def test_a_rank_of_its_own_for_some_modules_is_admitted(pattern: str) -> None:
    tensors = weights(BASE, ("q_proj",)) | weights(BASE, ("v_proj",), rank=8)
    assert fault(tensors, config(rank_pattern={pattern: 8})) is None
    assert fault(tensors) == "config_weights_disagree"


def test_an_alpha_of_its_own_counts_for_its_modules() -> None:
    tensors = weights(BASE)
    assert fault(tensors, config(alpha_pattern={"v_proj": 16.0})) is None
    assert fault(tensors, config(alpha_pattern={"v_proj": 1e9})) == "weights_overflow"


def test_rank_stabilised_scaling_divides_by_the_root_of_the_rank() -> None:
    assert scalings(config(rslora=True), [Q0])[Q0].factor == 4.0
    assert scalings(config(), [Q0])[Q0].factor == 2.0
    assert fault(weights(BASE), config(rslora=True)) is None


def test_embeddings_are_admitted() -> None:
    stem = "base_model.model.model.embed_tokens.lora_embedding"
    tensors = {
        f"{stem}_A": Value("F32", (4, VOCABULARY), 0.5),
        f"{stem}_B": Value("F32", (HIDDEN, 4), 0.5),
        "base_model.model.model.embed_tokens.base_layer.weight": Value("F32", (VOCABULARY, HIDDEN), 9.0),
    }
    adapter = config(target_modules=frozenset({"q_proj", "v_proj", "embed_tokens"}))
    assert fault(weights(BASE) | tensors, adapter) is None
    tensors[f"{stem}_A"] = Value("F32", (4, VOCABULARY + 1), 0.5)
    assert fault(weights(BASE) | tensors, adapter) == "shape_disagrees"


def test_the_output_head_is_admitted() -> None:
    assert fault(lora("lm_head", (VOCABULARY, HIDDEN)), config(target_modules=frozenset({"lm_head"}))) is None


def test_chosen_layers_alone_are_admitted() -> None:
    assert fault(weights(BASE, layers=1), config(layers_chosen=True)) is None
    assert fault(weights(BASE, layers=1)) == "layers_missing"


def test_modules_chosen_by_a_pattern_are_admitted_as_they_come() -> None:
    assert fault(weights(BASE, layers=1), config(target_modules=None, layers_chosen=True)) is None


def test_excluded_modules_are_not_missed() -> None:
    tensors = weights(BASE, ("q_proj",))
    assert fault(tensors, config(exclude_modules=frozenset({"v_proj"}))) is None
    assert fault(tensors) == "layers_missing"


def test_target_modules_the_base_model_does_not_have_are_not_missed() -> None:
    assert fault(weights(BASE), config(target_modules=frozenset({"q_proj", "v_proj", "c_attn"}))) is None


def test_a_checkpoint_saved_from_the_bare_model_is_recognised() -> None:
    bare = BaseModel(
        {
            "h.0.attn.c_attn": (HIDDEN, 3 * HIDDEN),
            "h.1.attn.c_attn": (HIDDEN, 3 * HIDDEN),
            "wte": (100, HIDDEN),
        },
        2,
    )
    tensors = lora("transformer.h.0.attn.c_attn", (3 * HIDDEN, HIDDEN)) | lora(
        "transformer.h.1.attn.c_attn", (3 * HIDDEN, HIDDEN)
    )
    adapter = config(target_modules=frozenset({"c_attn"}))
    assert fault(tensors, adapter, bare) is None, "a Conv1D is stored transposed"
    assert fault(
        without(tensors, "1.attn.c_attn.lora_A.weight", "1.attn.c_attn.lora_B.weight"), adapter, bare
    ) == ("layers_missing")


def test_a_prefix_that_the_checkpoint_has_elsewhere_is_part_of_the_name() -> None:
    whole = BaseModel({"model.layers.0.q_proj": (HIDDEN, HIDDEN), "layers.0.q_proj": (HIDDEN, HIDDEN)}, 1)
    assert fault(lora("model.layers.1.q_proj", (HIDDEN, HIDDEN)), base=whole) == "module_not_in_base_model"
    other = BaseModel({"layers.0.q_proj": (HIDDEN, HIDDEN), "model.norm": (1, HIDDEN)}, 1)
    assert fault(lora("model.layers.0.q_proj", (HIDDEN, HIDDEN)), base=other) == "module_not_in_base_model"
    bare = BaseModel({"layers.0.q_proj": (HIDDEN, HIDDEN)}, 1)
    assert fault(lora("model.layers.0.q_proj", (HIDDEN, HIDDEN)), base=bare) is None


def test_layers_of_the_checkpoint_that_are_not_run_are_not_missed() -> None:
    assert fault(weights(BASE), base=llama(layers=2, checkpoint_layers=3)) is None


def test_without_a_layer_count_every_layer_of_the_checkpoint_counts() -> None:
    base = BaseModel(BASE.shapes)
    assert fault(weights(base), base=base) is None
    assert fault(weights(BASE, layers=1), base=base) == "layers_missing"


@pytest.mark.parametrize(
    "stem",
    ["mlp.experts", "mlp.experts.base_layer", "mlp.experts.0.gate_proj", "block_sparse_moe.experts.7.w1"],
)
def test_experts_are_admitted_however_they_are_fused(stem: str) -> None:
    experts = {
        f"base_model.model.model.layers.0.{stem}.lora_A.weight": Value("BF16", (8 * 4, HIDDEN), 0.1),
        f"base_model.model.model.layers.0.{stem}.lora_B.weight": Value("BF16", (HIDDEN, 8 * 4), 0.1),
    }
    assert fault(weights(BASE) | experts, config(has_target_parameters=True)) is None


def test_experts_the_adapter_leaves_alone_are_not_missed() -> None:
    experts = {f"model.layers.0.mlp.experts.{n}.up_proj": (WIDE, HIDDEN) for n in range(4)}
    base = BaseModel({**BASE.shapes, **experts}, 2)
    assert fault(weights(BASE, MODULES), config(target_modules=frozenset(MODULES)), base) is None


@pytest.mark.parametrize("head", ["score", "classifier"])
def test_a_classification_head_saved_whole_is_admitted(head: str) -> None:
    whole = {f"base_model.model.{head}.weight": Value("F32", (3, HIDDEN), 2.0)}
    assert fault(weights(BASE) | whole, config(modules_to_save=frozenset({head}))) is None
    assert fault(weights(BASE) | whole) == "tensor_unsupported"


def test_a_renamed_model_gets_the_benefit_of_the_doubt() -> None:
    renamed = BaseModel(BASE.shapes, 2, renamed=True)
    tensors = lora("model.language_model.layers.0.self_attn.q_proj", (HIDDEN, HIDDEN))
    assert fault(tensors, base=renamed) is None
    assert fault(weights(BASE, layers=1), base=renamed) is None
    assert fault(lora(Q0, (HIDDEN, 7)), base=renamed) == "shape_disagrees", "a name that is found must fit"


def test_without_a_checkpoint_what_cannot_be_known_is_admitted() -> None:
    assert fault(lora("any.thing", (5, 7)), config(target_modules=frozenset({"thing"})), base=None) is None


def test_one_product_that_changes_something_will_do() -> None:
    tensors = {n: Value(t.dtype, t.shape, 0.0 if "lora_B" in n else 1.0) for n, t in weights(BASE).items()}
    tensors[Q0_B] = Value("F32", (HIDDEN, 4), 0.1)
    assert fault(tensors) is None


def test_a_pattern_that_is_no_pattern_would_fail_in_the_engine() -> None:
    assert fault(weights(BASE), config(rank_pattern={"(": 8})) == "rank_pattern_invalid"


def test_a_scaling_too_small_to_matter_is_no_fault() -> None:
    assert fault(weights(BASE), config(alpha=0.5)) is None
