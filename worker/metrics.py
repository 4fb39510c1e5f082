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
_ADAPTERS = Gauge(
    "loradrop_adapters", "Adapters of the catalog, by state here.", ["state"], multiprocess_mode="mostrecent"
)
_RESIDENT = Gauge(
    "loradrop_resident_revisions",
    "Revisions in the engine, as far as this process loaded them.",
    multiprocess_mode="max",
)
_PINNED = Gauge(
    "loradrop_pinned_revisions", "Private copies kept from eviction.", multiprocess_mode="livesum"
)
_OBSERVED_SEQ = Gauge(
    "loradrop_observed_seq", "Last change of the catalog applied here.", multiprocess_mode="min"
)
_CATALOG_STALE = Gauge(
    "loradrop_catalog_stale", "1 while the catalog cannot be read.", multiprocess_mode="max"
)
_DEGRADED = Gauge(
    "loradrop_worker_degraded",
    "1 where something is wrong with the whole worker.",
    multiprocess_mode="max",
)


def show(
    *, counts: Mapping[str, int], totals: tuple[int, int], seq: int, stale: bool, degraded: bool
) -> None:
    """Set the gauges; `totals` are the revisions that are resident and those that are pinned."""
    for state, count in counts.items():
        _ADAPTERS.labels(state).set(count)
    resident, pinned = totals
    _RESIDENT.set(resident)
    _PINNED.set(pinned)
    _OBSERVED_SEQ.set(seq)
    _CATALOG_STALE.set(stale)
    _DEGRADED.set(degraded)
