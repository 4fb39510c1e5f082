"""What is proven is what torch and safetensors read: one function per format, for any bytes at all.

Each returns where the readers agree, or where ours refuses; raises AssertionError where ours accepts what
the other reads differently or not at all, and whatever else ours raises that is not a verdict.
"""

import io
import json
import math
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import safetensors
import torch

from loradrop.catalog.lora.config import MAX_BASE_MODEL_BYTES, parse_config
from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.pickle_archive import check_sums, read_archive
from loradrop.catalog.lora.safetensors_header import read_header
from loradrop.catalog.lora.tensors import Tensor

STORAGE_BYTES = {"0": 128, "1": 128}
"""The storages that a pickle given to `check_pickle` may refer to."""

_TORCH_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Declared = dict[str, tuple[str, tuple[int, ...]]]


def check_config(data: bytes) -> None:
    """Hold our reading of a configuration against json's, which is vLLM's."""
    try:
        config = parse_config(data)
    except (Incomplete, Rejected):
        return
    fields = json.loads(data.decode())
    assert isinstance(fields, dict), "vLLM cannot read it"
    assert type(fields["r"]) is int
    assert fields["r"] == config.rank > 0
    assert math.isfinite(config.alpha)
    assert config.alpha == fields["lora_alpha"] > 0
    assert dict(config.rank_pattern) == (fields.get("rank_pattern") or {})
    assert dict(config.alpha_pattern) == (fields.get("alpha_pattern") or {})
    assert config.rslora == bool(fields.get("use_rslora"))
    assert config.base_model is None or len(config.base_model.encode()) <= MAX_BASE_MODEL_BYTES


def check_safetensors(data: bytes) -> None:
    """Hold our reading of a safetensors file against the reference implementation's."""
    with _file(data) as descriptor:
        try:
            ours = _declared(read_header(descriptor, len(data)))
        except (Incomplete, Rejected):
            return
    try:
        theirs = {
            name: (str(found["dtype"]), tuple(found["shape"]))
            for name, found in safetensors.deserialize(data)
        }
    except safetensors.SafetensorError as error:
        raise AssertionError(f"safetensors refuses it: {error}") from error
    assert ours == theirs


def check_zip(data: bytes) -> None:
    """Hold our reading of a `.bin` against torch's and Python's."""
    with _file(data) as descriptor:
        try:
            ours = _declared(read_archive(descriptor, len(data)))
            check_sums(descriptor, len(data))
        except (Incomplete, Rejected):
            return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None, "Python finds it damaged"
        names = sorted(archive.namelist())
    found = torch._C.PyTorchFileReader(io.BytesIO(data)).get_all_records()
    assert sorted(name.partition("/")[2] for name in names) == sorted(found)
    assert ours == _loaded(data)


def check_pickle(data: bytes) -> None:
    """Hold our reading of a state dict's pickle against torch's."""
    check_zip(archive_of(data))


def archive_of(program: bytes) -> bytes:
    """Return a `.bin` around a pickle, with the storages of `STORAGE_BYTES`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        for key, size in STORAGE_BYTES.items():
            archive.writestr(f"archive/data/{key}", bytes(size))
    return buffer.getvalue()


def program_of(content: bytes) -> bytes:
    """Return the pickle in a `.bin`."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))


def saved(content: object) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _loaded(data: bytes) -> Declared:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        EOFError,
    ) as error:
        raise AssertionError(f"torch refuses it: {error!r}") from error
    return {
        name: (_TORCH_TYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in state.items()
    }


def _declared(tensors: list[Tensor]) -> Declared:
    declared = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}
    assert len(declared) == len(tensors), "one name twice"
    return declared


@contextmanager
def _file(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("target")
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)
