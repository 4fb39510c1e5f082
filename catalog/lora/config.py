"""What `adapter_config.json` must say before an adapter can be served.

Read as vLLM reads it (its `PEFTHelper`), and where vLLM would fail later or silently serve the base model,
a sentence now. Features PEFT has and vLLM cannot serve are rejected by name.

Pure. Not here: reading the file (`adapter_files`), and what the weights say about it (`tensors`).
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.json_structure import outside_strings
from loradrop.catalog.lora.patterns import MAX_PATTERN_LENGTH, MAX_PATTERNS, pattern_invalid

MAX_CONFIG_BYTES = 1 << 20
"""Real configurations are a few kilobytes; one with thousands of module names still fits."""

MAX_BASE_MODEL_BYTES = 256
"""It is part of every record and event; a longer one is cut, since nothing is looked up by it."""

_MAX_DEPTH = 32
"""Real configurations are three levels deep."""

_MAX_RANK = 1 << 16
_MAX_QUOTED = 60
_SERVABLE_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_SERVABLE_MODULES_TO_SAVE = frozenset({"classifier", "score"})
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_UNSERVABLE_FEATURES = {
    "use_dora": ("dora_unsupported", "DoRA (use_dora)"),
    "lora_bias": ("bias_unsupported", "LoRA bias (lora_bias)"),
    "alora_invocation_tokens": ("alora_unsupported", "Activated LoRA (alora_invocation_tokens)"),
    "layer_replication": ("layer_replication_unsupported", "layer_replication"),
    "use_bdlora": ("bdlora_unsupported", "block-diagonal LoRA (use_bdlora)"),
    "use_qalora": ("qalora_unsupported", "QALoRA (use_qalora)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What of a valid configuration decides how the weights are applied."""

    rank: int
    alpha: float
    rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    target_modules: frozenset[str] | None = None
    """Suffixes of module names; None where the configuration gives a pattern instead."""
    has_target_parameters: bool = False
    """Whether it names parameters as well, so that modules may have weights that nothing names."""
    exclude_modules: frozenset[str] = frozenset()
    layers_chosen: bool = False
    """Whether it names single layers, so that the others are rightly missing."""
    modules_to_save: frozenset[str] = frozenset()
    """Modules saved whole."""
    base_model: str | None = None

    @property
    def max_rank(self) -> int:
        """The rank a server must allow for."""
        return max([self.rank, *self.rank_pattern.values()])

    def scaling(self, rank: int, alpha: float) -> float:
        """Return the factor the product of A and B is multiplied with."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def parse_config(text: bytes) -> LoraConfig:
    """Return what `text` configures; raises Incomplete where it is empty, and Rejected."""
    if not text.strip(b"\0 \t\r\n"):
        raise Incomplete("config_empty", "adapter_config.json is empty. Wait for the copy, or copy it again.")
    fields = _parse_json(text)
    _check_features(fields)
    return LoraConfig(
        rank=_rank(fields.get("r"), "r"),
        alpha=_alpha(fields.get("lora_alpha"), "lora_alpha"),
        rslora=bool(fields.get("use_rslora")),
        rank_pattern={key: _rank(value, name) for key, name, value in _pattern(fields, "rank_pattern")},
        alpha_pattern={key: _alpha(value, name) for key, name, value in _pattern(fields, "alpha_pattern")},
        target_modules=_target_modules(fields),
        has_target_parameters=bool(fields.get("target_parameters")),
        exclude_modules=_excluded(fields.get("exclude_modules")),
        layers_chosen=fields.get("layers_to_transform") is not None,
        modules_to_save=_modules_to_save(fields.get("modules_to_save")),
        base_model=_base_model(fields.get("base_model_name_or_path")),
    )


def _parse_json(text: bytes) -> dict[str, Any]:
    _check_depth(text)
    try:
        fields = _DECODER.decode(text.decode())
    except (ValueError, RecursionError) as error:
        why = str(error)[:120]
        raise Rejected(
            "config_invalid", f"adapter_config.json is not JSON: {why}. Save the adapter again with PEFT."
        ) from error
    if not isinstance(fields, dict):
        raise Rejected(
            "config_invalid", "adapter_config.json is not a JSON object. Save the adapter again with PEFT."
        )
    return fields


def _check_depth(text: bytes) -> None:
    """Raise Rejected where brackets outside strings nest too deeply, before anything is built of them."""
    if text.count(b"[") + text.count(b"{") <= _MAX_DEPTH:
        return
    depth = 0
    for piece in outside_strings(text):
        for byte in piece.translate(None, _ALL_BUT_BRACKETS):
            depth += 1 if byte in b"[{" else -1
            if depth > _MAX_DEPTH:
                raise Rejected(
                    "config_too_deep",
                    f"adapter_config.json is nested deeper than {_MAX_DEPTH} levels. Save it again with"
                    " PEFT.",
                )


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _check_features(fields: Mapping[str, Any]) -> None:
    peft_type = fields.get("peft_type")
    if peft_type is not None and str(peft_type).upper() != "LORA":
        raise Rejected(
            "peft_type_unsupported",
            f"peft_type is {_brief(peft_type)}, and only LORA can be served. Train or convert it to LoRA.",
        )
    bias = fields.get("bias", "none")
    if bias != "none":
        raise Rejected(
            "bias_unsupported",
            f"bias is {_brief(bias)}, and vLLM serves adapters without bias only. Train with bias='none'.",
        )
    for name, (code, words) in _UNSERVABLE_FEATURES.items():
        if fields.get(name):
            raise Rejected(code, f"vLLM cannot serve {words}. Merge the adapter, or train it without.")
    init = fields.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _SERVABLE_INITS:
        raise Rejected(
            "init_unsupported",
            f"init_lora_weights is {_brief(init)}, which changes the base model's weights. Convert it with"
            " PEFT's path_initial_model_for_weight_conversion.",
        )


def _rank(value: Any, name: str) -> int:
    if type(value) is not int or not 0 < value <= _MAX_RANK:  # type(): True is an int, too
        raise Rejected(
            "rank_invalid",
            f"{name} is {_brief(value)} in adapter_config.json; it must be a positive whole number.",
        )
    return value


def _alpha(value: Any, name: str) -> float:
    if type(value) in (int, float) and 0 < value <= sys.float_info.max:
        return float(value)
    raise Rejected(
        "alpha_invalid", f"{name} is {_brief(value)} in adapter_config.json; it must be a positive number."
    )


def _pattern(fields: Mapping[str, Any], name: str) -> list[tuple[str, str, Any]]:
    """Return a pattern's keys, what a message calls each, and their values."""
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict):
        raise pattern_invalid(name, f"{name} in adapter_config.json must map module names to numbers.")
    if len(pattern) > MAX_PATTERNS or any(len(key) > MAX_PATTERN_LENGTH for key in pattern):
        raise pattern_invalid(
            name,
            f"{name} in adapter_config.json has more than {MAX_PATTERNS} entries, or one of more than"
            f" {MAX_PATTERN_LENGTH} characters. Name the modules by shorter or fewer patterns.",
        )
    return [(sys.intern(key), f"{name}[{_brief(key)}]", value) for key, value in pattern.items()]


def _target_modules(fields: Mapping[str, Any]) -> frozenset[str] | None:
    value, parameters = fields.get("target_modules"), fields.get("target_parameters")
    if (value is None and parameters) or (isinstance(value, str) and value):
        return None
    named = isinstance(value, list) and all(isinstance(module, str) and module for module in value)
    if named and (value or parameters):
        return frozenset(map(sys.intern, value or ()))
    raise Rejected(
        "target_modules_invalid",
        "target_modules in adapter_config.json must be a list of module names or a pattern.",
    )


def _excluded(value: Any) -> frozenset[str]:
    names = [value] if isinstance(value, str) else value
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()


def _modules_to_save(value: Any) -> frozenset[str]:
    if not value:
        return frozenset()
    if isinstance(value, list) and all(
        isinstance(module, str) and module in _SERVABLE_MODULES_TO_SAVE for module in value
    ):
        return frozenset(value)
    raise Rejected(
        "modules_to_save_unsupported",
        f"modules_to_save is {_brief(value)}, and vLLM serves only classifier or score heads. Train"
        " without it.",
    )


def _base_model(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    shown = "".join(c if c.isprintable() else "?" for c in value[:MAX_BASE_MODEL_BYTES])
    text = shown.encode()
    if len(text) > MAX_BASE_MODEL_BYTES or len(value) > MAX_BASE_MODEL_BYTES:
        shown = text[: MAX_BASE_MODEL_BYTES - len("...")].decode(errors="ignore") + "..."
    return sys.intern(shown)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."
