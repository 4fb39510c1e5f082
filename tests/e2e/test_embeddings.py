"""Where the base model embeds, so do its adapters."""

from pathlib import Path

import httpx
import pytest

from testkit.servers import free_port
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, running
from tests.e2e.prefix import Prefix
from tests.worker.model_routes import POOLING, naming

pytestmark = pytest.mark.e2e


def test_an_adapter_changes_the_embedding_and_is_named_in_the_answer(
    tiny_model: Path, tmp_path: Path
) -> None:
    prefix = Prefix(tmp_path / "loras")
    prefix.rename_in("embedder", seed=1)
    command = [
        *(
            "loradrop.worker",
            str(tiny_model),
            *TINY_FLAGS,
            *LORA_FLAGS,
            "--runner",
            "pooling",
            "--convert",
            "embed",
        ),
        *("--lora-dir-prefix", str(prefix.directory), "--api-port", str(free_port())),
    ]
    with running(command, directory=tmp_path, name="embeddings") as server:

        def embed(model: str) -> dict[str, object]:
            response = server.client.post("/v1/embeddings", json={"model": model, "input": "hello"})
            assert response.status_code == httpx.codes.OK, response.text
            body: dict[str, object] = response.json()
            return body

        base, adapted = embed("tiny"), embed("embedder")
        assert adapted["model"] == "embedder"
        assert adapted["data"] != base["data"]
        assert server.client.post("/v1/embeddings", json={"model": "no", "input": "x"}).status_code == 404

        prefix.drop_half("half", seed=2)
        server.client.post("/v1/refresh_lora_discovery", json={"timeout": 30}).raise_for_status()
        for path in POOLING.keys() - {"/classify"}:
            answer = server.client.post(path, json={"model": "half", **POOLING[path]}, headers=naming("half"))
            assert (answer.status_code, answer.json()["error"]["type"]) == (409, "ConflictError"), path
            assert "retry-after" in answer.headers, path
