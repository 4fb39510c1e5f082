"""What admission needs to know of an adapter, read from its private copy.

The copy never changes, so mapping it into memory is safe. Every value is looked at once, for NaN,
infinity and size: 37 MB take some 20 ms. Call it in a thread.
"""

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.worker.admission.lora import LoraConfig, Tensor
from loradrop.worker.outcomes import Rejected

_SAFETENSORS_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}

_SAME_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_LONGEST_PATTERN = 256
_MOST_REPEATS = 3


def read_config(directory: Path) -> LoraConfig:
    """Return the configuration of the adapter in `directory`; raises Rejected."""
    try:
        raw = json.loads((directory / CONFIG_FILENAME).read_bytes())
        targets = raw.get("target_modules") or ()
        return LoraConfig(
            rank=_positive(raw["r"], "r"),
            alpha=_finite(raw["lora_alpha"]),
            rslora=bool(raw.get("use_rslora")),
            rank_pattern={_tame(k): _positive(v, k) for k, v in (raw.get("rank_pattern") or {}).items()},
            alpha_pattern={_tame(k): _finite(v) for k, v in (raw.get("alpha_pattern") or {}).items()},
            target_modules=() if isinstance(targets, str) else tuple(map(str, targets)),
            exclude_modules=_names(raw.get("exclude_modules")),
            layers_chosen=raw.get("layers_to_transform") is not None or isinstance(targets, str),
            full_modules=_names(raw.get("modules_to_save")),
        )
    except KeyError as error:
        raise Rejected("config_invalid", f"{CONFIG_FILENAME} has no {error}.") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        why = f"{CONFIG_FILENAME} is not a LoRA configuration: {error}."
        raise Rejected("config_invalid", why) from error


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Return the tensors of the adapter in `directory`, by name; raises Rejected."""
    safetensors = directory / WeightsFormat.SAFETENSORS.filename
    if not safetensors.exists():
        return _read_pickle(directory / WeightsFormat.PICKLE.filename)
    try:
        with safe_open(safetensors, framework="pt") as file:
            return {name: _measure(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        why = f"{safetensors.name} is not a safetensors file: {error}."
        raise Rejected("weights_invalid", why) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise Rejected(
            "weights_invalid", f"{path.name} holds more than tensors, or is damaged. Save it as safetensors."
        ) from error
    if not isinstance(loaded, dict) or not all(_is_plain(item) for item in loaded.values()):
        raise Rejected(
            "weights_invalid", f"{path.name} is no table of plain tensors. Save it as safetensors."
        )
    return {str(name): _measure(tensor) for name, tensor in loaded.items()}


def _is_plain(item: Any) -> bool:
    """Whether `item` is a dense tensor all of whose values are in the file (a view may claim more)."""
    if not isinstance(item, torch.Tensor) or item.layout is not torch.strided or item.is_meta:
        return False
    return bool(item.numel() * item.element_size() <= item.untyped_storage().nbytes())


def _measure(tensor: torch.Tensor) -> Tensor:
    name = _SAFETENSORS_NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    largest = _largest(tensor) if tensor.numel() and tensor.is_floating_point() else 0.0
    return Tensor(name, tuple(tensor.shape), largest)


def _largest(tensor: torch.Tensor) -> float:
    """Return the largest magnitude; NaN and infinity are larger than any number.

    The bits of floats, taken as integers, are in the order of their magnitudes: those of negative ones as
    unsigned integers, above all others. NumPy compares them on one core; torch would take all of them, in
    the middle of the engine's work, and be 30 times slower where they are busy.
    """
    integers = _SAME_SIZE[tensor.element_size()]
    bits = tensor.detach().contiguous().view(integers).numpy()
    without_sign = torch.iinfo(integers).max
    largest_positive, largest_negative = (
        int(bits.max()),
        int(bits.view(f"u{bits.dtype}").max()) & without_sign,
    )
    largest = torch.tensor([max(largest_positive, largest_negative)], dtype=integers)
    return float(largest.view(tensor.dtype).to(torch.float64))


def _tame(pattern: str) -> str:
    """Return `pattern` if matching it ends soon: admission and the engine run it on every module's name."""
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > _LONGEST_PATTERN or repeats > _MOST_REPEATS or re.search(r"\)[*+{]", pattern):
        raise ValueError(
            f"the pattern {pattern[:40]!r} could take for ever to match; name the modules instead"
        )
    return pattern


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}")
    return value


def _finite(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"lora_alpha must be a finite number, not {value!r}")
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value or ()))
