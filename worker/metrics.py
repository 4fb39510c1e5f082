"""What a worker counts, in vLLM's own `/metrics`.

They live in prometheus-client's default registry, which vLLM exposes; with several API processes vLLM
sums them up, so gauges say how.
"""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

LOADS = Counter("loradrop_loads", "Adapters brought to the engine, by outcome.", ["outcome"])
LOAD_SECONDS = Histogram(
    "loradrop_load_seconds",
    "Seconds from wanting a revision to serving it: copy, admission and load.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
COPIED_BYTES = Counter("loradrop_copied_bytes", "Bytes read from the prefix for private copies.")
DAMAGED = Counter("loradrop_damaged_revisions", "Private copies that were found damaged, and copied again.")
ADAPTERS = Gauge(
    "loradrop_adapters", "Adapters of the catalog, by state here.", ["state"], multiprocess_mode="mostrecent"
)
OBSERVED_SEQ = Gauge(
    "loradrop_observed_seq", "Last change of the catalog applied here.", multiprocess_mode="min"
)
CATALOG_STALE = Gauge(
    "loradrop_catalog_stale", "1 while the catalog cannot be read.", multiprocess_mode="max"
)


def show(*, counts: Mapping[str, int], seq: int, stale: bool) -> None:
    """Set the gauges."""
    for state, count in counts.items():
        ADAPTERS.labels(state).set(count)
    OBSERVED_SEQ.set(seq)
    CATALOG_STALE.set(stale)
