"""Which KV connectors are warned of, by vLLM's own configuration of them."""

from typing import Any

import pytest

from tests.worker.vllm_parts import FakeClient, KVTransferConfig

from loradrop.worker.engine.engine import Engine  # isort: skip - after what silences vLLM's imports

LMCACHE = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
OFFLOADING = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}


def doubted(**transfer: Any) -> list[str]:
    client = FakeClient()
    client.vllm_config.kv_transfer_config = KVTransferConfig(**transfer) if transfer else None
    return Engine(client, static_count=0).doubtful_connectors


def test_without_a_connector_there_is_nothing_to_warn_of() -> None:
    assert doubted() == []


def test_a_connector_that_goes_by_vllms_own_hashes_is_trusted() -> None:
    assert doubted(**OFFLOADING) == []


@pytest.mark.parametrize("name", ["LMCacheConnectorV1", "LMCacheMPConnector", "OneThatVllmDoesNotKnow"])
def test_any_other_is_named(name: str) -> None:
    assert doubted(kv_connector=name, kv_role="kv_both") == [name]


def test_those_within_a_multi_connector_are_named() -> None:
    nested = {"kv_connector": "MultiConnector", "kv_connector_extra_config": {"connectors": [LMCACHE]}}
    extra = {"connectors": [OFFLOADING, LMCACHE, nested]}
    multi = doubted(kv_connector="MultiConnector", kv_role="kv_both", kv_connector_extra_config=extra)
    assert multi == ["LMCacheConnectorV1"]
