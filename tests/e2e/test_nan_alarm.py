"""A base model with a NaN in it: the one way left, since no adapter with one reaches the engine."""

import shutil
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from testkit.servers import free_port
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, running
from testkit.waiting import wait_until_sync

pytestmark = pytest.mark.e2e

POISONED_TOKEN = 300


@pytest.fixture
def poisoned_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, with one token that no other prompt has turned into NaN."""
    directory = tmp_path / "poisoned"
    shutil.copytree(tiny_model, directory)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][POISONED_TOKEN] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    return directory


def test_answers_out_of_nan_are_told_by_the_worker_and_the_api(poisoned_model: Path, tmp_path: Path) -> None:
    api_port = free_port()
    command = [
        *(
            "loradrop.cli",
            "serve",
            str(poisoned_model),
            *TINY_FLAGS,
            *LORA_FLAGS,
            "--api-port",
            str(api_port),
        ),
        *("--lora-dir-prefix", str(tmp_path / "loras")),
    ]

    def degraded() -> str | None:
        [worker] = httpx.get(f"http://127.0.0.1:{api_port}/v1/lora_workers").json()["data"]
        reason: str | None = worker["degraded"] and worker["degraded"]["code"]
        return reason

    with running(command, directory=tmp_path, name="poisoned", VLLM_COMPUTE_NANS_IN_LOGITS="1") as server:
        assert server.ask("tiny").status == httpx.codes.OK
        assert degraded() is None
        body = {"model": "tiny", "prompt": [POISONED_TOKEN], "max_tokens": 2}
        assert server.client.post("/v1/completions", json=body).status_code == httpx.codes.OK
        wait_until_sync(
            lambda: degraded() == "nan_in_logits", timeout=30, description="the worker says that it met NaN"
        )
        assert "worker is degraded" in server.log
        assert "loradrop_worker_degraded" in server.client.get("/metrics").text
