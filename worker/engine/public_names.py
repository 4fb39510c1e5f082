"""Public names instead of the engine's own (`handle.inner_name`) in an API process's metrics and request log.

vLLM keeps a time series for each combination of adapters there ever was; here its metric has one, the latest.
Not here: KV events, which come from the engine's process (`public_events`).
"""

import functools
import os
from typing import Any

import msgspec
from vllm.entrypoints.serve.utils.request_logger import RequestLogger

from loradrop.worker.engine.handle import public_name

_MARK = "_loradrop"
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


def show_public_names(client: Any) -> None:
    """Show public names in this API process's metrics and request log; idempotent."""
    states = client.output_processor.lora_states
    if not hasattr(states, _MARK):
        setattr(states, _MARK, True)
        states._request_update = _with_public_name(states._request_update)
    for logger in client.logger_manager.stat_loggers if client.logger_manager is not None else ():
        gauge = getattr(logger, "gauge_lora_info", None)
        if gauge is not None and not isinstance(gauge, LatestSeries):
            logger.gauge_lora_info = LatestSeries(gauge, is_kept=_MULTIPROCESS in os.environ)
    if not hasattr(RequestLogger.log_inputs, _MARK):
        RequestLogger.log_inputs = _logging_public_names(RequestLogger.log_inputs)


class LatestSeries:
    """A labelled gauge of which only the latest combination of labels is left."""

    def __init__(self, gauge: Any, *, is_kept: bool) -> None:
        """Keep one series of `gauge`; none where each that is written `is_kept` for ever."""
        self._gauge = gauge
        self._is_kept = is_kept
        self._labels: dict[str, Any] = {}

    def labels(self, **labels: Any) -> Any:
        """Return the series of `labels`, alone."""
        if self._is_kept:
            return _Nowhere()
        if labels != self._labels:
            self._gauge.clear()
            self._labels = labels
        return self._gauge.labels(**labels)


class _Nowhere:
    def set_to_current_time(self) -> None:
        pass


def _with_public_name(update: Any) -> Any:
    @functools.wraps(update)
    def request_update(req_id: str, lora_name: str | None, *states: Any, **named: Any) -> None:
        update(req_id, public_name(lora_name) if lora_name else lora_name, *states, **named)

    return request_update


def _logging_public_names(log_inputs: Any) -> Any:
    @functools.wraps(log_inputs)
    def logged(*values: Any, lora_request: Any = None, **named: Any) -> None:
        if lora_request is not None:
            shown = public_name(lora_request.lora_name)
            lora_request = msgspec.structs.replace(lora_request, lora_name=shown)
        log_inputs(*values, lora_request=lora_request, **named)

    setattr(logged, _MARK, True)
    return logged
