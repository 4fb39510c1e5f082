"""Is this directory a complete, valid adapter? With the right reason for every no."""

import json
import os
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState, WeightsFormat
from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.revision import RevisionHasher
from loradrop.watcher.prefix.signature import Look, look_at
from loradrop.watcher.validation.inspection import inspect_adapter
from testkit.adapters import CONFIG, lora_weights, safetensors_bytes, write_adapter
from tests.watcher.bad_adapters import BAD, Bad


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.kind)
def test_a_bad_adapter_is_named_for_what_is_wrong(bad: Bad, tmp_path: Path) -> None:
    directory = tmp_path / "bad"
    bad.write(directory)
    found = inspect_adapter(directory)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (bad.state, bad.code)
    assert found.facts is None
    assert len(found.reason.message) < 600
    assert found.reason.message.endswith(".")


def test_nothing_in_a_pickle_was_run() -> None:
    assert not Path("/tmp/loradrop-was-owned").exists()


def test_a_good_adapter_is_ready_with_its_facts(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql", rank=8)
    found = inspect_adapter(directory)
    assert found.state is AdapterState.READY
    assert found.facts is not None
    assert (found.facts.rank, found.facts.base_model) == (8, "tiny-llama")
    assert found.facts.format is WeightsFormat.SAFETENSORS
    assert found.facts.size_bytes == sum(file.stat().st_size for file in directory.iterdir())
    assert found.revision is None


def test_the_revision_is_the_digest_of_both_files(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    config = (directory / "adapter_config.json").read_bytes()
    weights = (directory / "adapter_model.safetensors").read_bytes()
    hasher = RevisionHasher(WeightsFormat.SAFETENSORS, config, len(weights))
    hasher.update(weights)
    assert inspect_adapter(directory, with_revision=True).revision == hasher.revision()


def test_weights_of_many_chunks_have_the_same_revision_as_in_one(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "big")
    one = b"\x01\x02\x03\x04" * 600_000
    content = safetensors_bytes(
        {
            "base_model.model.q_proj.lora_A.weight": ("F32", [4, 150_000], one),
            "base_model.model.q_proj.lora_B.weight": ("F32", [150_000, 4], one),
        }
    )
    (directory / "adapter_model.safetensors").write_bytes(content)
    hasher = RevisionHasher(
        WeightsFormat.SAFETENSORS, (directory / "adapter_config.json").read_bytes(), len(content)
    )
    hasher.update(content)
    assert inspect_adapter(directory, with_revision=True).revision == hasher.revision()


def test_a_truncated_file_says_how_much_is_there(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    whole = lora_weights()
    (directory / "adapter_model.safetensors").write_bytes(whole[:-10])
    reason = inspect_adapter(directory).reason
    assert reason is not None
    assert f"{len(whole) - 10} of {len(whole)} bytes" in reason.message


def test_safetensors_are_preferred_to_a_bin_beside_them(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / "adapter_model.bin").write_bytes(b"rubbish")
    assert inspect_adapter(directory).state is AdapterState.READY


def test_an_unusable_name_is_told_before_anything_is_read(tmp_path: Path) -> None:
    found = inspect_adapter(tmp_path / "no spaces")
    assert found.reason is not None
    assert found.reason.code == "name_unusable"


def test_a_path_that_is_no_directory_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "nothing"):
        found = inspect_adapter(tmp_path / name)
        assert found.reason is not None
        assert (found.state, found.reason.code) == (AdapterState.REJECTED, "not_a_directory")


def test_links_inside_the_prefix_are_followed(tmp_path: Path) -> None:
    write_adapter(tmp_path / ".store" / "v1")
    (tmp_path / "sql").symlink_to(".store/v1")
    assert inspect_adapter(tmp_path / "sql").state is AdapterState.READY
    (tmp_path / "math").mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "math" / file).symlink_to(f"../.store/v1/{file}")
    assert inspect_adapter(tmp_path / "math").state is AdapterState.READY


def test_links_lead_out_only_where_the_operator_allows_it(tmp_path: Path) -> None:
    store = write_adapter(tmp_path / "store" / "v1").parent
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    (prefix / "sql").symlink_to(store / "v1")
    refused = inspect_adapter(prefix / "sql")
    assert refused.reason is not None
    assert refused.reason.code == "link_escapes"
    assert inspect_adapter(prefix / "sql", allow_symlinks_to=[store]).state is AdapterState.READY


def test_a_root_whose_name_only_begins_alike_is_another_root(tmp_path: Path) -> None:
    write_adapter(tmp_path / "prefix-private" / "v1")
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "sql").symlink_to("../prefix-private/v1")
    found = inspect_adapter(tmp_path / "prefix" / "sql")
    assert found.reason is not None
    assert found.reason.code == "link_escapes"


@pytest.mark.parametrize("name", ["sql", "sql/adapter_model.safetensors"])
def test_a_loop_of_links_is_unknown_and_no_crash(name: str, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    looping = tmp_path / name
    looping.rename(tmp_path / "aside")
    looping.symlink_to(looping.name)
    found = inspect_adapter(tmp_path / "sql")
    assert found.state is AdapterState.UNKNOWN
    assert found.reason is not None
    assert found.reason.code == "disk_error"


@pytest.mark.parametrize("peft_type", ["LORA", "lora", "Lora", None])
def test_the_type_is_lora_however_it_is_written_or_absent(peft_type: str | None, tmp_path: Path) -> None:
    assert inspect_adapter(write_adapter(tmp_path / "sql", peft_type=peft_type)).state is AdapterState.READY


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ".*_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["all-linear"]},
        {"target_modules": [".*proj"]},
        {"target_modules": ["self_attn.q_proj", "model.layers.0.self_attn.v_proj"]},
        {"target_modules": None, "target_parameters": ["experts.gate_up_proj"]},
        {"target_modules": [], "target_parameters": ["experts.gate_up_proj"]},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"modules_to_save": ["score"]},
        {"modules_to_save": []},
        {"rank_pattern": {}, "alpha_pattern": {"q_proj": 16}},
        {"rank_pattern": None, "alpha_pattern": None},
        {"use_rslora": True, "lora_alpha": 0.5},
        {"base_model_name_or_path": None},
        {"unknown_to_us": {"a": [1, 2, {"b": None}]}},
    ],
    ids=str,
)  # fmt: skip
def test_what_vllm_serves_is_accepted(fields: dict[str, object], tmp_path: Path) -> None:
    found = inspect_adapter(write_adapter(tmp_path / "sql", **fields))
    assert found.state is AdapterState.READY, found.reason


def test_ranks_follow_the_rank_pattern(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql", rank=4)
    config = directory / "adapter_config.json"
    config.write_text(json.dumps(CONFIG | {"r": 2, "rank_pattern": {"q_proj": 4, "self_attn.v_proj": 4}}))
    found = inspect_adapter(directory)
    assert found.facts is not None
    assert found.facts.rank == 4
    config.write_text(json.dumps(CONFIG | {"r": 4, "rank_pattern": {"q_proj": 8}}))
    assert inspect_adapter(directory).state is AdapterState.REJECTED
    config.write_text(json.dumps(CONFIG | {"r": 2, "rank_pattern": {"k_proj": 4}}))
    assert inspect_adapter(directory).state is AdapterState.REJECTED


def test_a_pattern_from_a_stranger_is_never_run(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql", rank=4, rank_pattern={"(a+)+$" * 10: 4, "(.*)*x": 9})
    found = inspect_adapter(directory)
    assert found.facts is not None
    assert found.facts.rank == 9


def test_heads_and_embeddings_vllm_serves_are_accepted(tmp_path: Path) -> None:
    directory = write_adapter(
        tmp_path / "sql", modules_to_save=["score"], target_modules=["embed_tokens", "experts"]
    )
    zeros = b"\0" * (4 * 32)
    (directory / "adapter_model.safetensors").write_bytes(
        safetensors_bytes(
            {
                "base_model.model.score.weight": ("F32", [4, 8], zeros),
                "base_model.model.model.embed_tokens.lora_embedding_A": ("F32", [4, 8], zeros),
                "base_model.model.model.embed_tokens.lora_embedding_B": ("F32", [8, 4], zeros),
                "base_model.model.model.embed_tokens.base_layer.weight": ("I8", [4, 32], zeros),
                "base_model.model.model.mlp.experts.lora_A.weight": ("F32", [2, 4, 4], zeros),
                "base_model.model.model.mlp.experts.lora_B.weight": ("F32", [4, 8], zeros),
            }
        )
    )
    found = inspect_adapter(directory)
    assert found.state is AdapterState.READY, found.reason


def test_an_incomplete_directory_is_looked_at_again_when_something_is_put_into_it(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        empty = look_at("sql", root, Roots((tmp_path,)))
        (tmp_path / "sql" / "model.safetensors").write_text("x")
        filled = look_at("sql", root, Roots((tmp_path,)))
    finally:
        os.close(root)
    assert isinstance(empty, Look)
    assert isinstance(filled, Look)
    assert empty.signature != filled.signature
