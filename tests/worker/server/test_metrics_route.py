"""`GET /metrics` shows what is computed when it is asked for, with one API process and with several."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from loradrop.worker.residency_metrics import ResidencyCollector, Residents, registered
from loradrop.worker.server.metrics_route import shown_registry
from tests.worker import vllm_parts  # noqa: F401 - says how vLLM is imported

from vllm.entrypoints.serve.instrumentator.metrics import attach_router  # isort: skip

RESIDENTS = ResidencyCollector(lambda: Residents(("sql",), (), places=4, on_device=1))


def test_with_one_process_it_is_what_vllm_shows() -> None:
    assert shown_registry(FastAPI()) is REGISTRY


def test_with_several_processes_it_is_shown_beside_what_vllm_collects_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    app = FastAPI()
    attach_router(app)
    unregister = registered(RESIDENTS, shown_registry(app))
    text = TestClient(app).get("/metrics").text
    unregister()
    assert 'loradrop_lora_adapter_loaded{adapter_name="sql"' in text
    assert "loradrop_lora_adapter_loaded{" not in TestClient(app).get("/metrics").text
