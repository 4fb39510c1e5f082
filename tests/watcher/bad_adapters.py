"""The bad adapters that kill, poison or fool a stock vLLM, as far as a disk can show them, and more."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import AdapterState
from testkit.adapters import CONFIG, lora_weights, safetensors_bytes, write_adapter

INCOMPLETE, REJECTED = AdapterState.INCOMPLETE, AdapterState.REJECTED
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
_B = _A.replace("lora_A", "lora_B")


@dataclass(frozen=True)
class Bad:
    """One bad kind: how to write it into a directory, and what must be found."""

    kind: str
    write: Callable[[Path], object]
    state: AdapterState
    code: str


def config(**fields: Any) -> Callable[[Path], object]:
    return lambda directory: write_adapter(directory, **fields)


def config_text(text: bytes) -> Callable[[Path], object]:
    def write(directory: Path) -> None:
        write_adapter(directory)
        (directory / "adapter_config.json").write_bytes(text)

    return write


def config_only(**fields: Any) -> Callable[[Path], object]:
    """Another configuration than the weights are of."""
    return config_text(json.dumps(CONFIG | fields).encode())


def config_without(*fields: str) -> Callable[[Path], object]:
    return config_text(json.dumps({k: v for k, v in CONFIG.items() if k not in fields}).encode())


def weights(content: bytes) -> Callable[[Path], object]:
    def write(directory: Path) -> None:
        write_adapter(directory)
        (directory / "adapter_model.safetensors").write_bytes(content)

    return write


def tensors(
    *, dtype: str = "F32", element: bytes = b"\0\0\0\0", **shapes: list[int]
) -> Callable[[Path], object]:
    """Weights of the tensors `name=shape`, where A and B stand for a whole LoRA name."""
    names = {"A": _A, "B": _B}
    made = {}
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        made[names.get(name, name.replace("__", "."))] = (dtype, shape, element * count)
    return weights(safetensors_bytes(made))


def header(text: bytes | dict[str, Any], data: bytes = b"") -> Callable[[Path], object]:
    if isinstance(text, dict):
        text = json.dumps(text).encode()
    return weights(struct.pack("<Q", len(text)) + text + data)


def length(header_bytes: int) -> Callable[[Path], object]:
    return weights(struct.pack("<Q", header_bytes) + b"{" * 99)


def without(filename: str) -> Callable[[Path], object]:
    def write(directory: Path) -> None:
        write_adapter(directory)
        (directory / filename).unlink()

    return write


def link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def replaced(filename: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(directory: Path) -> None:
        write_adapter(directory)
        (directory / filename).unlink()
        make(directory / filename)

    return write


def only_bin(content: bytes) -> Callable[[Path], object]:
    def write(directory: Path) -> None:
        write_adapter(directory)
        (directory / "adapter_model.safetensors").unlink()
        (directory / "adapter_model.bin").write_bytes(content)

    return write


def tree(*files: str) -> Callable[[Path], object]:
    def write(directory: Path) -> None:
        for file in files:
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).write_bytes(json.dumps(CONFIG).encode() if file.endswith(_CONFIG) else b"x")

    return write


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/loradrop-was-owned",)


def _entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape or [(end - begin) // 4, 1], "data_offsets": [begin, end]}


_GOOD = lora_weights()
_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"

BAD = [
    Bad("truncated_in_data", weights(_GOOD[:-1]), INCOMPLETE, "weights_truncated"),
    Bad("truncated_in_header", weights(_GOOD[:100]), INCOMPLETE, "weights_truncated"),
    Bad("truncated_in_length", weights(_GOOD[:4]), INCOMPLETE, "weights_truncated"),
    Bad("zero_bytes", weights(b""), INCOMPLETE, "weights_truncated"),
    Bad("random_bytes", weights(b"\x93" * 4096), REJECTED, "header_too_large"),
    Bad("header_of_2_to_the_40", length(1 << 40), REJECTED, "header_too_large"),
    Bad("header_of_2_to_the_63", length(1 << 63), REJECTED, "header_too_large"),
    Bad("header_of_blanks", header(b" " * 9_000_000), REJECTED, "header_invalid"),
    Bad("header_not_json", header(b"{nonsense"), REJECTED, "header_invalid"),
    Bad("header_a_list", header(b"[]"), REJECTED, "header_invalid"),
    Bad("header_with_nan", header(b'{"a": NaN}'), REJECTED, "header_invalid"),
    Bad("header_not_utf8", header(b'{"\xff": 1}'), REJECTED, "header_invalid"),
    Bad("header_nested_deeply", header(b'{"a":' * 90_000), REJECTED, "header_invalid"),
    Bad("header_entry_no_object", header({"a": 1}), REJECTED, "header_invalid"),
    Bad("header_names_twice", header(b'{"a":{},"a":{}}'), REJECTED, "header_invalid"),
    Bad("metadata_not_text", header({"__metadata__": {"a": 1}}), REJECTED, "header_invalid"),
    Bad(
        "offsets_overlap",
        header({_A: _entry(0, 8), _B: _entry(4, 12)}, bytes(12)),
        REJECTED,
        "header_invalid",
    ),
    Bad(
        "offsets_with_hole",
        header({_A: _entry(0, 8), _B: _entry(12, 20)}, bytes(20)),
        REJECTED,
        "header_invalid",
    ),
    Bad("offsets_backwards", header({_A: _entry(8, 0, [1, 1])}, bytes(8)), REJECTED, "header_invalid"),
    Bad("offsets_negative", header({_A: _entry(-8, 0, [2, 1])}), REJECTED, "header_invalid"),
    Bad("shape_of_other_size", header({_A: _entry(0, 8, [4, 4])}, bytes(8)), REJECTED, "header_invalid"),
    Bad(
        "shape_overflows",
        header({_A: _entry(0, 8, [1 << 62, 1 << 62])}, bytes(8)),
        REJECTED,
        "header_invalid",
    ),
    Bad("shape_of_floats", header({_A: _entry(0, 8, [2.0, 1])}, bytes(8)), REJECTED, "header_invalid"),
    Bad("shape_of_booleans", header({_A: _entry(0, 4, [True, True])}, bytes(4)), REJECTED, "header_invalid"),
    Bad("type_unknown", header({_A: _entry(0, 8, dtype="F1")}, bytes(8)), REJECTED, "header_invalid"),
    Bad("bytes_behind_the_end", weights(_GOOD + b"\0"), REJECTED, "weights_oversized"),
    Bad("no_tensors", weights(safetensors_bytes({})), REJECTED, "no_tensors"),
    Bad("one_dimension", tensors(A=[4], B=[4]), REJECTED, "shape_unsupported"),
    Bad("three_dimensions", tensors(A=[4, 2, 2], B=[4, 2, 2]), REJECTED, "shape_unsupported"),
    Bad("empty_tensor", tensors(A=[0, 4], B=[4, 0]), REJECTED, "shape_unsupported"),
    Bad("lora_b_missing", tensors(A=[4, 8]), REJECTED, "lora_b_missing"),
    Bad("lora_a_missing", tensors(B=[8, 4]), REJECTED, "lora_a_missing"),
    Bad("integers", tensors(A=[4, 8], B=[8, 4], dtype="I8", element=b"\0"), REJECTED, "dtype_unsupported"),
    Bad("full_model", tensors(model__layers__0__mlp__weight=[4, 4]), REJECTED, "tensor_unsupported"),
    Bad("nameless", tensors(x=[4, 4]), REJECTED, "tensor_unsupported"),
    Bad("bare_lora_name", tensors(lora_A__weight=[4, 4]), REJECTED, "tensor_unsupported"),
    Bad("extra_embeddings", tensors(model__embed_tokens__weight=[4, 4]), REJECTED, "tensor_unsupported"),
    Bad(
        "config_rank_8_tensors_4",
        config_only(r=8),
        REJECTED,
        "config_weights_disagree",
    ),
    Bad("other_target_modules", config(target_modules=["k_proj"]), REJECTED, "config_weights_disagree"),
    Bad("config_missing", without("adapter_config.json"), INCOMPLETE, "config_missing"),
    Bad("config_empty", config_text(b""), INCOMPLETE, "config_empty"),
    Bad("config_of_zeros", config_text(b"\0" * 512), INCOMPLETE, "config_empty"),
    Bad("weights_missing", without("adapter_model.safetensors"), INCOMPLETE, "weights_missing"),
    Bad("directory_empty", lambda directory: directory.mkdir(), INCOMPLETE, "directory_empty"),
    Bad("lfs_pointer", weights(_LFS), REJECTED, "git_lfs_pointer"),
    Bad("lfs_pointer_for_bin", only_bin(_LFS), REJECTED, "git_lfs_pointer"),
    Bad("lfs_pointer_for_config", config_text(_LFS), REJECTED, "git_lfs_pointer"),
    Bad(
        "sharded_weights",
        tree(_CONFIG, "adapter_model-00001-of-00002.safetensors", "adapter_model.safetensors.index.json"),
        REJECTED,
        "weights_sharded",
    ),
    Bad("sharded_bin", tree(_CONFIG, "adapter_model-00001-of-00002.bin"), REJECTED, "weights_sharded"),
    Bad("organisation", tree(f"sql/{_CONFIG}", f"sql/{_WEIGHTS}"), REJECTED, "directory_of_adapters"),
    Bad("whole_model", tree("config.json", "model.safetensors", "README.md"), REJECTED, "whole_model"),
    Bad(
        "whole_sharded_model",
        tree("config.json", "model-00001-of-00003.safetensors", "model.safetensors.index.json"),
        REJECTED,
        "whole_model",
    ),
    Bad("whole_old_model", tree("config.json", "pytorch_model.bin"), REJECTED, "whole_model"),
    Bad("hub_cache", tree("blobs/ab", "refs/main", f"snapshots/ab/{_CONFIG}"), REJECTED, "hub_cache"),
    Bad(
        "checkpoints",
        tree(f"checkpoint-100/{_CONFIG}", f"checkpoint-200/{_WEIGHTS}", "trainer_state.json"),
        REJECTED,
        "checkpoints_only",
    ),
    Bad("weights_of_mlx", tree(_CONFIG, "adapters.safetensors"), INCOMPLETE, "weights_missing"),
    Bad("something_else", tree("README.md", "src/main.py"), INCOMPLETE, "config_missing"),
    Bad("config_not_json", config_text(b"{"), REJECTED, "config_invalid"),
    Bad("config_a_list", config_text(b"[]"), REJECTED, "config_invalid"),
    Bad("config_not_utf8", config_text(b'{"peft_type": "\xff"}'), REJECTED, "config_invalid"),
    Bad("config_with_nan", config_text(b'{"r": NaN}'), REJECTED, "config_invalid"),
    Bad("config_without_anything", config_text(b"{}"), REJECTED, "rank_invalid"),
    Bad("config_too_large", config_text(b" " * ((1 << 20) + 1)), REJECTED, "config_too_large"),
    Bad("config_nested_deeply", config_text(b"[" * 100_000), REJECTED, "config_too_deep"),
    Bad(
        "config_nested_unread",
        config_text(b'{"x":%b%b}' % (b"[" * 40, b"]" * 40)),
        REJECTED,
        "config_too_deep",
    ),
    Bad("rank_text", config_only(r="8"), REJECTED, "rank_invalid"),
    Bad("rank_zero", config_only(r=0), REJECTED, "rank_invalid"),
    Bad("rank_true", config_only(r=True), REJECTED, "rank_invalid"),
    Bad("rank_float", config_only(r=4.0), REJECTED, "rank_invalid"),
    Bad("rank_pattern_zero", config(rank_pattern={"q_proj": 0}), REJECTED, "rank_invalid"),
    Bad("rank_pattern_a_list", config(rank_pattern=[1]), REJECTED, "rank_pattern_invalid"),
    Bad("alpha_null", config(lora_alpha=None), REJECTED, "alpha_invalid"),
    Bad("alpha_missing", config_without("lora_alpha"), REJECTED, "alpha_invalid"),
    Bad("alpha_negative", config(lora_alpha=-1), REJECTED, "alpha_invalid"),
    Bad("alpha_pattern_text", config(alpha_pattern={"q_proj": "1"}), REJECTED, "alpha_invalid"),
    Bad("target_modules_missing", config_without("target_modules"), REJECTED, "target_modules_invalid"),
    Bad("target_modules_null", config(target_modules=None), REJECTED, "target_modules_invalid"),
    Bad("target_modules_numbers", config(target_modules=[1]), REJECTED, "target_modules_invalid"),
    Bad("prompt_tuning", config(peft_type="PROMPT_TUNING"), REJECTED, "peft_type_unsupported"),
    Bad("dora", config(use_dora=True), REJECTED, "dora_unsupported"),
    Bad("bias_all", config(bias="all"), REJECTED, "bias_unsupported"),
    Bad("lora_bias", config(lora_bias=True), REJECTED, "bias_unsupported"),
    Bad("modules_to_save", config(modules_to_save=["lm_head"]), REJECTED, "modules_to_save_unsupported"),
    Bad("modules_to_save_text", config(modules_to_save="score"), REJECTED, "modules_to_save_unsupported"),
    Bad("pissa", config(init_lora_weights="pissa_niter_16"), REJECTED, "init_unsupported"),
    Bad("alora", config(alora_invocation_tokens=[1]), REJECTED, "alora_unsupported"),
    Bad("layer_replication", config(layer_replication=[[0, 1]]), REJECTED, "layer_replication_unsupported"),
    Bad("bdlora", config(use_bdlora={"n": 1}), REJECTED, "bdlora_unsupported"),
    Bad("qalora", config(use_qalora=True), REJECTED, "qalora_unsupported"),
    Bad("weights_a_directory", replaced(_WEIGHTS, Path.mkdir), REJECTED, "not_a_file"),
    Bad("config_a_pipe", replaced(_CONFIG, os.mkfifo), REJECTED, "not_a_file"),
    Bad("weights_a_pipe", replaced(_WEIGHTS, os.mkfifo), REJECTED, "not_a_file"),
    Bad(
        "weights_a_device",
        replaced(_WEIGHTS, link("/dev/zero")),
        REJECTED,
        "link_escapes",
    ),
    Bad(
        "config_a_secret",
        replaced(_CONFIG, link("/etc/passwd")),
        REJECTED,
        "link_escapes",
    ),
    Bad(
        "config_a_link_upwards",
        replaced(_CONFIG, link("../../../../etc/passwd")),
        REJECTED,
        "link_escapes",
    ),
    Bad("directory_a_link_out", link("/usr"), REJECTED, "link_escapes"),
    Bad(
        "weights_a_dangling_link",
        replaced(_WEIGHTS, link("gone")),
        INCOMPLETE,
        "weights_missing",
    ),
    Bad(
        "directory_a_dangling_link",
        link("gone"),
        INCOMPLETE,
        "link_dangling",
    ),
    Bad("bin_empty", only_bin(b""), INCOMPLETE, "weights_truncated"),
    Bad("bin_bare_pickle", only_bin(pickle.dumps(_Evil())), REJECTED, "pickle_legacy"),
    Bad("bin_random", only_bin(b"\x93" * 4096), REJECTED, "pickle_legacy"),
]
