"""Targets: whole adapters, held against what serves them. What is called ready, the references read alike.

The watcher's answer about a directory is compared with `safetensors`, with `torch.load(weights_only=True)`
and with the JSON reader vLLM uses. Each target mutates one layer and keeps those around it valid, since
no mutation finds a checksum or the length of a header by chance.
"""

import io
import json
import zipfile
from pathlib import Path

import safetensors.torch
import torch

from loradrop.catalog.adapter import AdapterState
from loradrop.watcher.validation.inspection import Inspection, inspect_adapter
from testkit.adapters import CONFIG, lora_weights
from tests.fuzz.checks.scratch import emptied
from tests.fuzz.target import Disagreement, Target

_RANK = 4
_EXAMPLE = Path(__file__).parents[3] / "examples/adapters/sql_adapter/adapter_config.json"
_JSON = (
    *(bytes([sign]) for sign in b'"{}[]:,'),
    b"null",
    b"true",
    b"\\u0000",
    b"1e400",
    b"-1",
    b"NaN",
    b"1.0",
)
_MOST_DATA_BYTES = 1 << 20


def check_config(data: bytes) -> None:
    """A configuration is refused, or Python's JSON reads the same rank and base model."""
    found = _inspected(data, "safetensors", lora_weights(rank=_RANK))
    if found.state is not AdapterState.READY:
        return
    assert found.facts is not None
    config = json.loads(data)
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    if found.facts.rank != max(ranks) or not all(type(rank) is int for rank in ranks):
        raise Disagreement(f"rank {found.facts.rank}, and the file says {ranks}")
    base_model = config.get("base_model_name_or_path")
    if found.facts.base_model is not None and found.facts.base_model != base_model:
        raise Disagreement(f"base model {found.facts.base_model!r}, and the file says {base_model!r}")


def check_header(data: bytes) -> None:
    """A safetensors file with this header is refused, or safetensors reads matrices of the rank we tell."""
    weights = len(data).to_bytes(8, "little") + data + bytes(_declared_bytes(data))
    _check_safetensors(weights)


def check_safetensors_file(data: bytes) -> None:
    """So is any file."""
    _check_safetensors(data)


def check_archive(data: bytes) -> None:
    """A `.bin` is refused, or torch reads matrices of the rank we tell."""
    _check_bin(data)


def check_program(data: bytes) -> None:
    """So is one of this pickle, in an archive around it that is valid."""
    _check_bin(_archive(data))


def _check_safetensors(weights: bytes) -> None:
    found = _inspected(json.dumps(CONFIG).encode(), "safetensors", weights)
    if found.state is AdapterState.READY:
        try:
            tensors = safetensors.torch.load(weights)
        except Exception as error:
            raise Disagreement(f"ready, and safetensors says {error!r}") from error
        _check_tensors(tensors)


def _check_bin(weights: bytes) -> None:
    found = _inspected(json.dumps(CONFIG).encode(), "bin", weights)
    if found.state is AdapterState.READY:
        try:
            tensors = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        except Exception as error:
            raise Disagreement(f"ready, and torch says {error!r}") from error
        _check_tensors(tensors)


def _check_tensors(tensors: object) -> None:
    if not isinstance(tensors, dict) or not tensors:
        raise Disagreement(f"ready, and the reference reads {type(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise Disagreement(f"ready, and the reference reads {name!r}: {type(tensor)}")
        side = 0 if ".lora_A." in name else 1
        if tensor.ndim != len("AB") or tensor.shape[side] != _RANK or not tensor.is_floating_point():
            raise Disagreement(f"ready, and the reference reads {name!r}: {tensor.dtype} {tensor.shape}")


def _inspected(config: bytes, kind: str, weights: bytes) -> Inspection:
    """Return what the watcher makes of these files; raises Disagreement where it broke on them."""
    directory = emptied("adapter")
    (directory / "adapter_config.json").write_bytes(config)
    (directory / f"adapter_model.{kind}").write_bytes(weights)
    found = inspect_adapter(directory, with_revision=True)
    if found.state is AdapterState.UNKNOWN:
        raise Disagreement(f"the watcher broke: {found.reason}")
    return found


def _declared_bytes(header: bytes) -> int:
    """Return how many bytes of data a header asks for, as far as that can be told and is not much."""
    try:
        entries = json.loads(header).values()
        ends = [entry["data_offsets"][1] for entry in entries if "data_offsets" in entry]
        return min(max(ends), _MOST_DATA_BYTES) if all(type(end) is int and end >= 0 for end in ends) else 0
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return 0


def _archive(program: bytes) -> bytes:
    """Return an archive as torch writes it, of `program` and four storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for number in range(4):
            archive.writestr(f"archive/data/{number}", bytes(4 * _RANK * 8))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def _saved(*, modules: tuple[str, ...] = ("q_proj", "v_proj"), **options: object) -> bytes:
    """Return what torch saves of a valid adapter of `modules`."""
    tensors = safetensors.torch.load(lora_weights(rank=_RANK))
    chosen = {name: tensor for name, tensor in tensors.items() if any(part in name for part in modules)}
    file = io.BytesIO()
    torch.save(chosen, file, **options)  # type: ignore[arg-type]  # any option of torch.save
    return file.getvalue()


def _program(weights: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(weights)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def _config_seeds() -> list[bytes]:
    configs = (CONFIG, CONFIG | {"rank_pattern": {"q_proj": _RANK}, "alpha_pattern": {"v_proj": 3.5}})
    return [_EXAMPLE.read_bytes(), *(json.dumps(config).encode() for config in configs)]


def _safetensors_seeds() -> list[bytes]:
    weights = lora_weights(rank=_RANK)
    return [weights, safetensors.torch.save(safetensors.torch.load(weights), {"format": "pt"})]


def _header_seeds() -> list[bytes]:
    return [weights[8 : 8 + int.from_bytes(weights[:8], "little")] for weights in _safetensors_seeds()]


def _archive_seeds() -> list[bytes]:
    return [_saved(), _saved(pickle_protocol=4), _archive(_program(_saved()))]


def _program_seeds() -> list[bytes]:
    saved = [_saved(pickle_protocol=protocol) for protocol in (2, 4, 5)]
    return [_program(weights) for weights in (*saved, _saved(modules=("q_proj",)))]


_PICKLE = (
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nFloatStorage\n",
    b"ctorch\nHalfStorage\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n", b"\x80\x02", b"\x93",
    b"(", b")", b"}", b"]", b"t", b"\x85", b"\x86", b"\x87", b"R", b"Q", b"u", b"s", b"b", b".", b"0", b"1",
    b"2", b"q\x00", b"h\x00", b"K\x04", b"M\x00\x01", b"J\xff\xff\xff\x7f", b"\x8a\x01\x04", b"\x89", b"\x88",
    b"N", b"a", b"e",
)  # fmt: skip
_ZIP = tuple(b"PK" + sign for sign in (b"\x03\x04", b"\x01\x02", b"\x05\x06", b"\x06\x06", b"\x06\x07"))
_HEADER = (
    b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b"F32", b"BF16", b"F4", b"lora_A",
    b"base_model.model.model.layers.0.self_attn.q_proj",
)  # fmt: skip

TARGETS = (
    Target(
        "config",
        check_config,
        _config_seeds,
        (*_JSON, b'"r"', b'"rank_pattern"', b'"target_modules"', b'"lora_alpha"'),
    ),
    Target("header", check_header, _header_seeds, (*_JSON, *_HEADER)),
    Target("safetensors_file", check_safetensors_file, _safetensors_seeds, (*_JSON, *_HEADER)),
    Target("archive", check_archive, _archive_seeds, (*_ZIP, b"\xff\xff\xff\xff", b"\x01\x00")),
    Target("program", check_program, _program_seeds, _PICKLE),
)
