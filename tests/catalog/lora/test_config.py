"""What of a configuration is read, and what of it is refused."""

import json
import math
from typing import Any

import pytest

from loradrop.catalog.lora.config import MAX_BASE_MODEL_BYTES, LoraConfig, parse_config
from loradrop.catalog.lora.faults import Incomplete, Rejected
from testkit.adapters import CONFIG


def parsed(**fields: Any) -> LoraConfig:
    return parse_config(json.dumps(CONFIG | fields).encode())


def code_of(text: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        parse_config(text)
    return caught.value.reason.code


def test_a_configuration_is_read() -> None:
    config = parsed()
    assert (config.rank, config.alpha, config.target_modules) == (4, 8.0, frozenset({"q_proj", "v_proj"}))
    assert (config.rslora, config.layers_chosen, config.has_target_parameters) == (False, False, False)
    assert (config.modules_to_save, config.exclude_modules) == (frozenset(), frozenset())


def test_patterns_and_chosen_layers_are_read() -> None:
    config = parsed(
        use_rslora=True,
        rank_pattern={"q_proj": 2},
        alpha_pattern={"v_proj": 4},
        layers_to_transform=[0, 1],
        exclude_modules="o_proj",
        modules_to_save=["score"],
    )
    assert config.rslora
    assert config.layers_chosen
    assert (config.rank_pattern, config.alpha_pattern) == ({"q_proj": 2}, {"v_proj": 4.0})
    assert (config.exclude_modules, config.modules_to_save) == (frozenset({"o_proj"}), frozenset({"score"}))


@pytest.mark.parametrize("pattern", ["all-linear", r".*\.(q|v)_proj", "^model.*proj$"])
def test_target_modules_may_be_a_pattern(pattern: str) -> None:
    assert parsed(target_modules=pattern).target_modules is None


def test_nulls_mean_not_given() -> None:
    names = ["rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules", "modules_to_save"]
    assert parsed(**dict.fromkeys(names)) == parsed()


@pytest.mark.parametrize(
    "text",
    [
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b'\xef\xbb\xbf{"r": 8}',
        json.dumps(CONFIG).encode("utf-16"),
        json.dumps(CONFIG).encode("utf-16-le"),
        json.dumps(CONFIG).encode("utf-32-be"),
        b'{"unread": "\xff"}',
        b'{"r": ' + b"9" * 5000 + b"}",
        b'{"unread": NaN}',
    ],
    ids=lambda text: repr(text)[:40],
)
def test_what_vllm_could_not_read_is_invalid(text: bytes) -> None:
    assert code_of(text) == "config_invalid"


@pytest.mark.parametrize("text", [b"", b" \n", bytes(512)])
def test_an_empty_file_is_waited_for(text: bytes) -> None:
    with pytest.raises(Incomplete, match="config_empty"):
        parse_config(text)


@pytest.mark.parametrize("alpha", [None, "16", math.inf, -1, 0, True, 10**400, -(10**400), [1]])
def test_a_factor_that_is_no_positive_number_is_refused(alpha: Any) -> None:
    text = json.dumps(CONFIG | {"lora_alpha": alpha}).replace("Infinity", "1e999").encode()
    assert code_of(text) == "alpha_invalid"


@pytest.mark.parametrize("closing", ["]", "}", "]}" * 40])
def test_brackets_in_strings_do_not_count_for_the_depth(closing: str) -> None:
    nested = b"[" * 40 + b"]" * 40
    assert code_of(b'{"x": ["%s"], "y": %s}' % (closing.encode() * 50, nested)) == "config_too_deep"
    assert code_of(b'{"x": "\\"%s", "y": %s}' % (closing.encode() * 50, nested)) == "config_too_deep"
    parsed(note="[" * 500 + closing)


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_patterns_are_bounded_in_number_and_length(field: str) -> None:
    for pattern in ({f"layer{number}": 4 for number in range(5000)}, {"q" * 300: 4}):
        assert code_of(json.dumps(CONFIG | {field: pattern}).encode()) == f"{field}_invalid"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("x" * 256, "x" * 256),
        ("x" * 257, "x" * 253 + "..."),
        ("\u00e9" * 200, "\u00e9" * 126 + "..."),
        ("line\nline\x1b[2J", "line?line?[2J"),
        ("half \ud800 pair", "half ? pair"),
        ("", None),
        (7, None),
    ],
)
def test_the_base_models_name_is_bounded_and_printable(name: Any, shown: str | None) -> None:
    found = parsed(base_model_name_or_path=name).base_model
    assert found == shown
    assert found is None or len(found.encode()) <= MAX_BASE_MODEL_BYTES
