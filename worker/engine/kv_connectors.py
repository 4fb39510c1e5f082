"""KV connectors that may take one adapter's cached keys and values for another's.

The keys and values of a prompt depend on the adapter. vLLM's own hashes of blocks contain its name; a
connector that keys by the base model and the tokens alone answers one adapter from another's cache, without
any error (vllm-project/vllm#44250). Which of them do so is not declared anywhere. So only those count as safe
that vLLM brings and that use its hashes, or hand over the blocks of one request.
"""

from collections.abc import Iterator
from typing import Any

_APART = frozenset(
    {
        "DecodeBenchConnector",
        "MoRIIOConnector",
        "MooncakeConnector",
        "MooncakeStoreConnector",
        "NixlConnector",
        "NixlPullConnector",
        "NixlPushConnector",
        "OffloadingConnector",
        "P2pNcclConnector",
        "SimpleCPUOffloadConnector",
    }
)


def doubtful_connectors(transfer: Any) -> list[str]:
    """Return the connectors of vLLM's KVTransferConfig (or None) that may mix up adapters."""
    if transfer is None:
        return []
    return sorted(set(_names(transfer.kv_connector, transfer.kv_connector_extra_config)) - _APART)


def _names(name: str | None, extra: Any) -> Iterator[str]:
    """Yield `name`, or those of the connectors that vLLM's MultiConnector puts together."""
    if name != "MultiConnector":
        yield from [name] if name else []
        return
    for inner in extra.get("connectors", []):
        yield from _names(inner.get("kv_connector"), inner.get("kv_connector_extra_config", {}))
