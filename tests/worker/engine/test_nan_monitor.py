"""The monitor of answers out of NaN: what vLLM counts."""

import inspect
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Counter

from loradrop.worker.engine.nan_monitor import NanMonitor
from tests.worker.vllm_parts import model_table  # noqa: F401 - before anything else that imports vLLM


@pytest.fixture
def corrupted() -> Iterator[Counter]:
    """vLLM's counter, as its PrometheusStatLogger makes it, for a server of two engines."""
    counter = Counter("vllm:corrupted_requests", "Requests with NaNs in logits.", ["model_name", "engine"])
    for engine in "01":
        counter.labels("tiny", engine).inc(0)
    yield counter
    REGISTRY.unregister(counter)


def test_while_nothing_is_corrupted_nothing_is_said(
    corrupted: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    assert NanMonitor(is_counted=True).reason() is None
    assert caplog.records == []


def test_corrupted_requests_of_all_engines_are_counted(corrupted: Counter) -> None:
    monitor = NanMonitor(is_counted=True)
    corrupted.labels("tiny", "0").inc(3)
    corrupted.labels("tiny", "1").inc(40)
    reason = monitor.reason()
    assert reason is not None
    assert reason.code == "nan_in_logits"
    assert reason.message.startswith("43 requests")
    assert monitor.reason() == reason, "until the server is restarted"


def test_where_vllm_was_not_asked_to_count_its_count_says_nothing(corrupted: Counter) -> None:
    corrupted.labels("tiny", "0").inc()
    assert NanMonitor(is_counted=False).reason() is None


def test_a_server_that_cannot_count_says_so_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    monitor = NanMonitor(is_counted=True)
    assert "--disable-log-stats" in caplog.text
    assert monitor.reason() is None


def test_this_vllm_counts_under_the_name_we_look_at() -> None:
    from vllm.v1.metrics import loggers

    source = inspect.getsource(loggers.PrometheusStatLogger)
    assert 'name="vllm:corrupted_requests"' in source
    assert "VLLM_COMPUTE_NANS_IN_LOGITS" in source
