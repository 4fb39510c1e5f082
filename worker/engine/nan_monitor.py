"""Tells when answers came out of NaN: looks at what vLLM counts of them, and hooks into nothing.

With VLLM_COMPUTE_NANS_IN_LOGITS=1 vLLM looks for NaN in the logits of every request, and counts the requests
in which it found any, when they end, in its own metrics. Without it nothing is counted, looked at or paid.
"""

import logging

from prometheus_client import REGISTRY

from loradrop.catalog.adapter import Reason

_log = logging.getLogger(__name__)

_COUNTED = "vllm:corrupted_requests_total"


class NanAlarm:
    """Keeps true: once a request of this process met NaN, it says so until the server is restarted."""

    def __init__(self, *, is_counted: bool) -> None:
        """Watch; `is_counted` says whether vLLM was asked to count."""
        self._is_counted = is_counted
        self._rang = False
        if is_counted and _corrupted_requests() is None:
            _log.warning("requests that meet NaN are not counted, because of --disable-log-stats")

    def reason(self) -> Reason | None:
        """Return why this server's answers are not to be trusted, or None."""
        corrupted = _corrupted_requests() if self._is_counted else None
        if not corrupted:
            return None
        reason = Reason(
            "nan_in_logits",
            f"{corrupted} requests met NaN in the model's logits. Their answers are garbage, and what they "
            "left in the engine's cache may spoil those of others: restart the server, and look at the "
            "adapters they used.",
        )
        _log.log(logging.DEBUG if self._rang else logging.ERROR, "answers are corrupted reason=%s", reason)
        self._rang = True
        return reason


def _corrupted_requests() -> int | None:
    """Return what vLLM has counted in this process, all engines together; None where it does not count."""
    counts = [
        sample.value
        for metric in REGISTRY.restricted_registry([_COUNTED]).collect()
        for sample in metric.samples
        if sample.name == _COUNTED
    ]
    return round(sum(counts)) if counts else None
