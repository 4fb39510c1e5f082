"""What admission needs to know of an adapter, read from its private copy.

The files are read as the watcher reads them (`catalog.lora`), and then as vLLM does, by safetensors and
torch: only where both see the same tensors can the values be judged, once each, for NaN, infinity and size:
37 MB take some 20 ms. The copy never changes, so mapping it into memory is safe. Call it in a thread.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from loradrop.catalog.adapter import WeightsFormat
from loradrop.catalog.lora.adapter_files import opened_adapter
from loradrop.catalog.lora.config import LoraConfig, parse_config
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.catalog.lora.open_files import Roots, opened_directory
from loradrop.worker.admission.checks import Weights

_SAFETENSORS_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}

_SAME_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def read_adapter(directory: Path, *, allow_pickle: bool = True) -> tuple[LoraConfig, Weights]:
    """Return configuration and weights of the adapter in `directory`; raises Rejected, and OSError."""
    roots = Roots((directory,))
    try:
        with (
            opened_directory(directory, ".", roots) as descriptor,
            opened_adapter(descriptor, roots, allow_pickle=allow_pickle) as files,
        ):
            config = parse_config(files.config)
            tensors = files.declared_tensors()
            weights_format = files.weights_format
    except (Incomplete, Changed) as error:  # a private copy is never added to
        raise Rejected(error.reason.code, error.reason.message) from error
    loaded = _load(directory / weights_format.filename, weights_format)
    for tensor in tensors:
        found = loaded.get(tensor.name)
        kind = None if found is None else _SAFETENSORS_NAMES.get(found.dtype)
        if found is None or tuple(found.shape) != tensor.shape or kind not in {tensor.dtype, None}:
            raise _misread(weights_format, tensor.name)
    if len(loaded) != len(tensors):
        raise _misread(weights_format, "a tensor")
    return config, Weights(tensors, {name: _largest(tensor) for name, tensor in loaded.items()})


def _load(path: Path, weights_format: WeightsFormat) -> Mapping[str, torch.Tensor]:
    try:
        if weights_format is WeightsFormat.PICKLE:
            loaded: dict[str, torch.Tensor] = torch.load(
                path, map_location="cpu", weights_only=True, mmap=True
            )
            return loaded
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _misread(weights_format, f"the file ({str(error)[:120]})") from error


def _misread(weights_format: WeightsFormat, what: str) -> Rejected:
    code = "pickle_invalid" if weights_format is WeightsFormat.PICKLE else "header_invalid"
    return Rejected(
        code,
        f"torch reads {what[:160]} of {weights_format.filename} in another way than it is declared. Save the"
        " adapter again, as safetensors.",
    )


def _largest(tensor: torch.Tensor) -> float:
    """Return the largest magnitude; NaN and infinity are larger than any number.

    The bits of floats, taken as integers, are in the order of their magnitudes: those of negative ones as
    unsigned integers, above all others. NumPy compares them on one core; torch would take all of them, in
    the middle of the engine's work, and be 30 times slower where they are busy.
    """
    if not tensor.numel() or not tensor.is_floating_point():
        return 0.0
    integers = _SAME_SIZE[tensor.element_size()]
    bits = tensor.detach().contiguous().view(integers).numpy()
    without_sign = torch.iinfo(integers).max
    largest_positive = int(bits.max())
    largest_negative = int(bits.view(f"u{bits.dtype}").max()) & without_sign
    largest = torch.tensor([max(largest_positive, largest_negative)], dtype=integers)
    return float(largest.view(tensor.dtype).to(torch.float64))
