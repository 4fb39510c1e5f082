"""Bad adapters beside good ones: each shows its reason, and the engine goes on."""

import subprocess
import sys

import httpx
import pytest
import torch

from testkit.tiny_model import tiny_adapter_tensors
from testkit.waiting import wait_until_sync
from tests.e2e.conftest import AllInOne

pytestmark = pytest.mark.e2e


BAD = {
    "cut-short": "weights",
    "empty": "",
    "random": "",
    "rank-too-high": "rank_too_high",
    "not-a-number": "weights_not_finite",
    "of-a-smaller-model": "shape_disagrees",
    "one-layer": "layers_missing",
}


def drop_bad_adapters(all_in_one: AllInOne) -> None:
    prefix, tensors = all_in_one.prefix, tiny_adapter_tensors(seed=9)
    truncated = prefix.copy_in("cut-short", seed=9) / "adapter_model.safetensors"
    truncated.write_bytes(truncated.read_bytes()[:-64])
    (prefix.copy_in("empty", seed=9) / "adapter_model.safetensors").write_bytes(b"")
    (prefix.copy_in("random", seed=9) / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 16)
    prefix.rename_in("rank-too-high", seed=9, rank=16)
    nan = {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors.items()}
    prefix.rename_in("not-a-number", seed=9, tensors=nan)
    half = {
        name: (tensor[:, :64] if "lora_A" in name else tensor[:64]).clone()
        for name, tensor in tensors.items()
    }
    prefix.rename_in("of-a-smaller-model", seed=9, tensors=half)
    prefix.rename_in(
        "one-layer", seed=9, tensors={name: tensor for name, tensor in tensors.items() if "layers.0" in name}
    )


def reason_on_disk_or_worker(adapter: dict[str, object]) -> str:
    workers = adapter["workers"]
    assert isinstance(workers, dict)
    reasons = [adapter["reason"], *(worker["reason"] for worker in workers.values())]
    return " ".join(str(reason["code"]) for reason in reasons if isinstance(reason, dict))


def test_bad_adapters_beside_good_ones_show_their_reason_and_the_engine_lives(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("good", seed=1)
    all_in_one.wait_listed("good")
    references = {name: all_in_one.server.ask(name, max_tokens=32).tokens for name in ("tiny", "good")}
    drop_bad_adapters(all_in_one)
    all_in_one.server.client.post("/v1/refresh_lora_discovery", json={"timeout": 30})

    answers = {name: all_in_one.server.ask(name) for name in BAD}

    def reasons() -> dict[str, str]:
        listed = httpx.get(f"{all_in_one.api_url}/v1/lora_adapters").json()["data"]
        return {adapter["id"]: reason_on_disk_or_worker(adapter) for adapter in listed}

    wait_until_sync(
        lambda: all(reasons().get(name) for name in BAD), timeout=10, description="every reason is reported"
    )
    for name, code in BAD.items():
        assert answers[name].status in {400, 409}, (name, answers[name])
        assert answers[name].error, name
        assert code in reasons()[name], (name, reasons()[name])
        assert f"name={name} " in all_in_one.server.log, name
    for name, tokens in references.items():
        assert all_in_one.server.ask(name, max_tokens=32).tokens == tokens

    shown = subprocess.run(
        [sys.executable, "-m", "loradrop.cli", "ls", "--json", "--api-url", all_in_one.api_url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(f'"{name}"' in shown for name in BAD)
