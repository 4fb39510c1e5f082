"""Which tensors are one LoRA adapter of their configuration, judged by names, types and shapes alone."""

from typing import Any

import pytest

from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.tensors import Pair, Tensor, lora_pairs

Q = "base_model.model.model.layers.0.self_attn.q_proj"


def a_tensor(name: str, *shape: int, dtype: str = "F32") -> Tensor:
    return Tensor(name, dtype, shape)


def pair_of(module: str, *, rank: int = 4) -> list[Tensor]:
    return [
        a_tensor(f"{module}.lora_A.weight", rank, 8),
        a_tensor(f"{module}.lora_B.weight", 8, rank),
    ]


def config(**changes: Any) -> LoraConfig:
    values: dict[str, Any] = {"rank": 4, "alpha": 8.0, "target_modules": frozenset({"q_proj"})}
    return LoraConfig(**(values | changes))


def code_of(tensors: list[Tensor], **changes: Any) -> str:
    with pytest.raises(Rejected) as caught:
        lora_pairs(tensors, config(**changes))
    return caught.value.reason.code


def test_pairs_are_found_by_their_modules() -> None:
    a, b = pair_of(Q)
    assert lora_pairs([a, b], config()) == {Q.removeprefix("base_model.model."): Pair(a, b)}
    assert lora_pairs([b, a], config()) == lora_pairs([a, b], config())


def test_embeddings_have_names_of_their_own() -> None:
    a = a_tensor("embed_tokens.lora_embedding_A", 4, 100)
    b = a_tensor("embed_tokens.lora_embedding_B", 8, 4)
    targets = frozenset({"embed_tokens"})
    assert lora_pairs([b, a], config(target_modules=targets)) == {"embed_tokens": Pair(a, b)}


@pytest.mark.parametrize("gone", ["A", "B"])
def test_half_a_pair_is_refused_by_what_is_missing(gone: str) -> None:
    tensors = [tensor for tensor in pair_of(Q) if f"lora_{gone}" not in tensor.name]
    assert code_of(tensors) == f"lora_{gone.lower()}_missing"


def test_a_name_has_at_most_512_characters() -> None:
    for length, is_served in ((512, True), (513, False)):
        module = "m" * (length - len(".q_proj.lora_A.weight")) + ".q_proj"
        tensors = pair_of(module)
        assert len(tensors[0].name) == length
        if is_served:
            assert set(lora_pairs(tensors, config())) == {module}
        else:
            assert code_of(tensors) == "tensor_unsupported"


@pytest.mark.parametrize(
    "name", ["lora_A.weight", "lora_embedding_A", "score.weight", f"{Q}.weight", f"{Q}.lora_C.weight", ""]
)
def test_a_tensor_without_a_module_or_a_side_is_refused(name: str) -> None:
    assert code_of([*pair_of(Q), a_tensor(name, 4, 8)]) == "tensor_unsupported"


def test_a_head_saved_whole_is_no_pair_and_no_adapter_alone() -> None:
    heads = [a_tensor("score.weight", 3, 8), a_tensor("base_model.model.score.bias", 3)]
    changes = {"modules_to_save": frozenset({"score"})}
    assert lora_pairs([*heads, *pair_of(Q)], config(**changes)) == lora_pairs(pair_of(Q), config())
    assert code_of(heads, **changes) == "no_tensors"
    assert code_of([a_tensor("score.weight", 3, 8, dtype="I8")], **changes) == "dtype_unsupported"


def test_what_vllm_leaves_out_is_not_judged() -> None:
    ignored = a_tensor("base_model.model.lm_head.base_layer.weight", 3, dtype="I8")
    assert lora_pairs([ignored, *pair_of(Q)], config()) == lora_pairs(pair_of(Q), config())
    assert code_of([ignored]) == "no_tensors"


@pytest.mark.parametrize("shape", [(), (4,), (0, 8), (4, 0), (4, 8, 1)])
def test_what_is_no_matrix_or_empty_is_refused(shape: tuple[int, ...]) -> None:
    assert code_of([a_tensor(f"{Q}.lora_A.weight", *shape)]) == "shape_unsupported"


def test_experts_may_be_stacked_and_have_any_rank() -> None:
    module = "model.layers.0.mlp.experts"
    parameters = config(has_target_parameters=True)
    for shape in ((32, 8), (2, 4, 8)):
        tensors = [
            a_tensor(f"{module}.lora_A.weight", *shape),
            a_tensor(f"{module}.lora_B.weight", *shape[::-1]),
        ]
        assert set(lora_pairs(tensors, parameters)) == {module}
    for shape in ((2, 2, 4, 8), (8,), (2, 0, 8)):
        tensors = [a_tensor(f"{module}.lora_A.weight", *shape)]
        assert code_of(tensors, has_target_parameters=True) == "shape_unsupported"


@pytest.mark.parametrize(("a_rank", "b_rank"), [(8, 4), (4, 2), (8, 8)])
def test_both_halves_have_the_rank_of_the_configuration(a_rank: int, b_rank: int) -> None:
    tensors = [a_tensor(f"{Q}.lora_A.weight", a_rank, 16), a_tensor(f"{Q}.lora_B.weight", 16, b_rank)]
    assert code_of(tensors) == "config_weights_disagree"


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": None},
        {"target_modules": frozenset({"all-linear"})},
        {"target_modules": frozenset({r".*\.v_proj"})},
        {"has_target_parameters": True},
        {"target_modules": frozenset({"v_proj", "self_attn.q_proj"})},
    ],
    ids=["a pattern alone", "all", "a pattern among names", "parameters", "a longer suffix"],
)
def test_modules_must_be_named_only_where_names_are_all_there_is(changes: dict[str, Any]) -> None:
    assert lora_pairs(pair_of(Q), config(**changes))


@pytest.mark.parametrize("targets", [{"v_proj"}, {"proj"}, {"q_proj.lora_A"}, set()])
def test_a_module_that_no_name_means_is_of_another_adapter(targets: set[str]) -> None:
    assert code_of(pair_of(Q), target_modules=frozenset(targets)) == "config_weights_disagree"
