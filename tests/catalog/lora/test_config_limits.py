"""A configuration at each limit is read, and one beyond it is refused with the reason."""

import json
import sys
from typing import Any

import pytest

from loradrop.catalog.lora.config import LoraConfig, parse_config
from loradrop.catalog.lora.faults import Rejected
from testkit.adapters import CONFIG


def parsed(**fields: Any) -> LoraConfig:
    return parse_config(json.dumps(CONFIG | fields).encode())


def code_of(**fields: Any) -> str:
    with pytest.raises(Rejected) as caught:
        parsed(**fields)
    return caught.value.reason.code


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 0


def test_a_rank_is_a_whole_number_up_to_65536() -> None:
    assert parsed(r=1).rank == 1
    assert parsed(r=65_536).rank == 65_536
    for rank in (0, -1, 65_537, True, 4.0, "4", None):
        assert code_of(r=rank) == "rank_invalid"
        assert code_of(rank_pattern={"q_proj": rank}) == "rank_invalid"


def test_an_alpha_is_any_positive_number() -> None:
    for alpha in (0.001, 1, sys.float_info.max):
        assert parsed(lora_alpha=alpha).alpha == alpha
        assert parsed(alpha_pattern={"q_proj": alpha}).alpha_pattern == {"q_proj": alpha}


def test_the_rank_a_server_must_allow_for_is_the_largest_of_all() -> None:
    assert parsed(r=8, rank_pattern={"q_proj": 4}).max_rank == 8
    assert parsed(r=8, rank_pattern={"q_proj": 4, "v_proj": 16}).max_rank == 16


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_has_at_most_4096_entries_of_at_most_256_characters(field: str) -> None:
    for largest in ({f"layer{number}": 4 for number in range(4096)}, {"q" * 256: 4}):
        assert getattr(parsed(**{field: largest}), field) == largest
    for pattern in ({f"layer{number}": 4 for number in range(4097)}, {"q": 4, "q" * 257: 4}, ["q"], "q", 4):
        assert code_of(**{field: pattern}) == f"{field}_invalid"


def test_a_configuration_is_nested_32_levels_deep_at_most() -> None:
    parsed(note=nested(31))  # the object itself is a level
    parsed(note=[nested(30)] * 20)
    assert code_of(note=nested(32)) == "config_too_deep"
    assert code_of(note=[nested(31)] * 20) == "config_too_deep"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"target_modules": ["q_proj"]}, {"q_proj"}),
        ({"target_modules": "all-linear"}, None),
        ({"target_modules": None, "target_parameters": ["mlp.experts"]}, None),
        ({"target_modules": [], "target_parameters": ["mlp.experts"]}, set()),
        ({"target_modules": ["q_proj"], "target_parameters": ["mlp.experts"]}, {"q_proj"}),
    ],
)
def test_what_is_trained_may_be_modules_a_pattern_or_parameters(
    fields: dict[str, Any], expected: set[str] | None
) -> None:
    config = parsed(**fields)
    assert config.target_modules == expected
    assert config.has_target_parameters == bool(fields.get("target_parameters"))


@pytest.mark.parametrize("value", [None, "", [], [""], ["q_proj", ""], ["q_proj", 7], {"q_proj": 1}, 7])
def test_target_modules_that_name_nothing_are_refused(value: Any) -> None:
    assert code_of(target_modules=value) == "target_modules_invalid"


@pytest.mark.parametrize("value", [{"q_proj": 1}, 7])
def test_target_modules_of_another_kind_are_refused_beside_parameters_too(value: Any) -> None:
    assert code_of(target_modules=value, target_parameters=["mlp.experts"]) == "target_modules_invalid"


@pytest.mark.parametrize(
    ("value", "expected"), [("o_proj", {"o_proj"}), (["a", "b"], {"a", "b"}), ([], set()), ({"a": 1}, set())]
)
def test_excluded_modules_are_a_name_or_a_list(value: Any, expected: set[str]) -> None:
    assert parsed(exclude_modules=value).exclude_modules == expected


def test_only_heads_that_vllm_serves_may_be_saved_whole() -> None:
    assert parsed(modules_to_save=["score", "classifier"]).modules_to_save == {"score", "classifier"}
    assert parsed(modules_to_save=[]).modules_to_save == set()
    for value in (["lm_head"], ["score", "lm_head"], ["score", 7], "score", {"score": 1}, 7):
        assert code_of(modules_to_save=value) == "modules_to_save_unsupported"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"peft_type": "IA3"}, "peft_type_unsupported"),
        ({"peft_type": 7}, "peft_type_unsupported"),
        ({"bias": "all"}, "bias_unsupported"),
        ({"bias": None}, "bias_unsupported"),
        ({"use_dora": True}, "dora_unsupported"),
        ({"lora_bias": True}, "bias_unsupported"),
        ({"layer_replication": [[0, 4]]}, "layer_replication_unsupported"),
        ({"init_lora_weights": "pissa"}, "init_unsupported"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_by_name(fields: dict[str, Any], code: str) -> None:
    assert code_of(**fields) == code


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": None},
        {"peft_type": "lora"},
        {"bias": "none"},
        {"use_dora": False},
        {"layer_replication": None},
        {"init_lora_weights": False},
        {"init_lora_weights": "Gaussian"},
        {"init_lora_weights": None},
    ],
)
def test_what_changes_nothing_is_read(fields: dict[str, Any]) -> None:
    assert parsed(**fields) == parsed()


def test_the_product_is_scaled_by_the_rank_or_by_its_root() -> None:
    assert parsed().scaling(16, 8.0) == 0.5
    assert parsed(use_rslora=True).scaling(16, 8.0) == 2.0
