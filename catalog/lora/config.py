"""What `adapter_config.json` must say before an adapter can be served.

Read as strictly as vLLM will (its `PEFTHelper`), and where vLLM would fail later or silently serve the
base model, a sentence now. Features PEFT has and vLLM cannot serve are rejected by name.

Pure. Not here: reading the file (`inspection`), and what the weights say about it (`lora_tensors`).
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from loradrop.catalog.lora.faults import Incomplete, Rejected

MAX_CONFIG_BYTES = 1 << 20
"""Real configurations are a few kilobytes; one with thousands of module names still fits."""

MAX_DEPTH = 32
"""Real configurations are three levels deep."""

_MAX_RANK = 1 << 16
_MAX_QUOTED = 60
_SERVABLE_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_SERVABLE_MODULES_TO_SAVE = frozenset({"classifier", "score"})


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The part of a valid configuration that the weights must agree with.

    `target_modules` is None where the configuration leaves the names open (a pattern, or parameters).
    """

    r: int
    rank_pattern: Mapping[str, int]
    target_modules: frozenset[str] | None
    modules_to_save: frozenset[str]
    base_model: str | None

    @property
    def max_rank(self) -> int:
        """The rank a server must allow for."""
        return max([self.r, *self.rank_pattern.values()])


class _Fields(msgspec.Struct, gc=False):
    """The fields that decide, as they are in the file; everything else is skipped while parsing."""

    peft_type: Any = None
    r: Any = None
    lora_alpha: Any = None
    target_modules: Any = msgspec.UNSET
    target_parameters: Any = None
    rank_pattern: Any = None
    alpha_pattern: Any = None
    modules_to_save: Any = None
    base_model_name_or_path: Any = None
    bias: Any = "none"
    init_lora_weights: Any = True
    use_dora: Any = False
    lora_bias: Any = False
    alora_invocation_tokens: Any = None
    layer_replication: Any = None
    use_bdlora: Any = None
    use_qalora: Any = False


_decoder = msgspec.json.Decoder(_Fields)

_UNSERVABLE_FEATURES = {
    "use_dora": ("dora_unsupported", "DoRA (use_dora)"),
    "lora_bias": ("bias_unsupported", "LoRA bias (lora_bias)"),
    "alora_invocation_tokens": ("alora_unsupported", "Activated LoRA (alora_invocation_tokens)"),
    "layer_replication": ("layer_replication_unsupported", "layer_replication"),
    "use_bdlora": ("bdlora_unsupported", "block-diagonal LoRA (use_bdlora)"),
    "use_qalora": ("qalora_unsupported", "QALoRA (use_qalora)"),
}


def parse_config(text: bytes) -> PeftConfig:
    """Return what `text` configures; raises Incomplete where it is empty, and Rejected."""
    if not text.strip(b"\0 \t\r\n"):
        raise Incomplete("config_empty", "adapter_config.json is empty. Wait for the copy, or copy it again.")
    _check_depth(text)
    try:
        fields = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(
            "config_invalid",
            f"adapter_config.json is not a JSON object: {error}. Save the adapter again with PEFT.",
        ) from error
    _check_features(fields)
    return PeftConfig(
        r=_rank(fields.r, "r"),
        rank_pattern=_patterns(fields),
        target_modules=_target_modules(fields),
        modules_to_save=_modules_to_save(fields.modules_to_save),
        base_model=_base_model(fields.base_model_name_or_path),
    )


def _check_depth(text: bytes) -> None:
    # A bound on nesting that needs no parsing: brackets inside strings only make it stricter.
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for byte in text:
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Rejected(
                    "config_too_deep",
                    f"adapter_config.json is nested deeper than {MAX_DEPTH} levels. Save it again with PEFT.",
                )
        elif byte in b"]}":
            depth -= 1


def _check_features(fields: _Fields) -> None:
    peft_type = fields.peft_type
    if peft_type is not None and str(peft_type).upper() != "LORA":
        raise Rejected(
            "peft_type_unsupported",
            f"peft_type is {_brief(peft_type)}, and only LORA can be served. Train or convert it to LoRA.",
        )
    if fields.bias != "none":
        raise Rejected(
            "bias_unsupported",
            f"bias is {_brief(fields.bias)}, and vLLM serves adapters without bias only. Train with"
            " bias='none'.",
        )
    for field, (code, words) in _UNSERVABLE_FEATURES.items():
        if getattr(fields, field):
            raise Rejected(code, f"vLLM cannot serve {words}. Merge the adapter, or train it without.")
    init = fields.init_lora_weights
    if isinstance(init, str) and init.lower() not in _SERVABLE_INITS:
        raise Rejected(
            "init_unsupported",
            f"init_lora_weights is {_brief(init)}, which changes the base model's weights. Convert it with"
            " PEFT's path_initial_model_for_weight_conversion.",
        )


def _rank(value: Any, field: str) -> int:
    if type(value) is not int or not 0 < value <= _MAX_RANK:  # type(): True is an int, too
        raise Rejected(
            "rank_invalid",
            f"{field} is {_brief(value)} in adapter_config.json; it must be a positive whole number.",
        )
    return value


def _patterns(fields: _Fields) -> dict[str, int]:
    alpha = fields.lora_alpha
    _check_alpha(alpha, "lora_alpha")
    for field in ("rank_pattern", "alpha_pattern"):
        if not isinstance(getattr(fields, field), dict | None):
            raise Rejected(
                f"{field}_invalid", f"{field} in adapter_config.json must map module names to numbers."
            )
    for module, value in (fields.alpha_pattern or {}).items():
        _check_alpha(value, f"alpha_pattern[{_brief(module)}]")
    return {
        sys.intern(module): _rank(value, f"rank_pattern[{_brief(module)}]")
        for module, value in (fields.rank_pattern or {}).items()
    }


def _check_alpha(value: Any, field: str) -> None:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise Rejected(
            "alpha_invalid",
            f"{field} is {_brief(value)} in adapter_config.json; it must be a positive number.",
        )


def _target_modules(fields: _Fields) -> frozenset[str] | None:
    value = fields.target_modules
    if value is None and fields.target_parameters:
        return None
    if isinstance(value, str) and value:
        return None
    if isinstance(value, list) and all(isinstance(module, str) and module for module in value):
        if fields.target_parameters:
            return None
        if value:
            return frozenset(value)
    raise Rejected(
        "target_modules_invalid",
        "target_modules in adapter_config.json must be a list of module names or a pattern.",
    )


def _modules_to_save(value: Any) -> frozenset[str]:
    if not value:
        return frozenset()
    if isinstance(value, list) and all(module in _SERVABLE_MODULES_TO_SAVE for module in value):
        return frozenset(value)
    raise Rejected(
        "modules_to_save_unsupported",
        f"modules_to_save is {_brief(value)}, and vLLM serves only classifier or score heads. Train"
        " without it.",
    )


def _base_model(value: Any) -> str | None:
    return sys.intern(value) if isinstance(value, str) and value else None


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."
