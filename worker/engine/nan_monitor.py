"""Whether this server answered out of NaN: reads what vLLM counts, and hooks into nothing.

With VLLM_COMPUTE_NANS_IN_LOGITS=1 vLLM searches the logits of every request for NaN, and counts the requests
in which it found any, when they end, in its own metrics. Without it nothing is counted, read or paid.
"""

import logging

from prometheus_client import REGISTRY

from loradrop.catalog.adapter import Reason

_log = logging.getLogger(__name__)

_COUNTED = "vllm:corrupted_requests_total"


class NanMonitor:
    """Invariant: once a request of this process met NaN, it is reported until the server is restarted."""

    def __init__(self, *, is_counted: bool) -> None:
        """Watch the count; `is_counted` says whether vLLM was asked to count."""
        self._is_counted = is_counted
        if is_counted and _corrupted_requests() is None:
            _log.warning("requests that meet NaN are not counted, because of --disable-log-stats")

    def reason(self) -> Reason | None:
        """Return why this server's answers are not to be trusted, or None."""
        corrupted = _corrupted_requests() if self._is_counted else None
        if not corrupted:
            return None
        return Reason(
            "nan_in_logits",
            f"{corrupted} requests met NaN in the model's logits. Their answers are garbage, and what they "
            "left in the engine's cache may spoil those of others: restart the server, and look at the "
            "adapters they used.",
        )


def _corrupted_requests() -> int | None:
    """Return what vLLM has counted in this process, all engines together; None where it does not count."""
    counts = [
        sample.value
        for metric in REGISTRY.restricted_registry([_COUNTED]).collect()
        for sample in metric.samples
        if sample.name == _COUNTED
    ]
    return round(sum(counts)) if counts else None
