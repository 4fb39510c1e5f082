"""What comes out of vLLM about adapters names them as clients do: metrics, request log, KV events."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry, Gauge

from loradrop.worker.engine.handle import Handle
from tests.catalog.values import revision
from tests.worker.vllm_parts import LoRARequest

from vllm.config.kv_events import KVEventsConfig  # isort: skip
from vllm.distributed import kv_events  # isort: skip - after what says how vLLM is imported
from vllm.distributed.kv_events import BlockRemoved, BlockStored, EventPublisher, KVEventBatch  # isort: skip
from vllm.entrypoints.serve.utils import request_logger  # isort: skip
from vllm.v1.metrics.stats import LoRARequestStates, SchedulerStats  # isort: skip

from loradrop.worker.engine.model_table import request_of  # isort: skip
from loradrop.worker.engine.public_events import publish_public_names  # isort: skip
from loradrop.worker.engine.public_names import LatestSeries, show_public_names  # isort: skip

OLD, NEW = (
    request_of(Handle.of("sql", revision(digit), Path(f"/store/{digit}"), attempt=0)) for digit in "ab"
)


@pytest.fixture
def gauge() -> Gauge:
    labels = ["max_lora", "running_lora_adapters", "waiting_lora_adapters"]
    return Gauge("lora_requests_info", "As vLLM has it.", labels, registry=CollectorRegistry())


@pytest.fixture
def client(gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine client with vLLM's own count of requests."""
    monkeypatch.setattr(  # restored afterwards: it is vLLM's class
        request_logger.RequestLogger, "log_inputs", request_logger.RequestLogger.log_inputs
    )
    client = SimpleNamespace(
        output_processor=SimpleNamespace(lora_states=LoRARequestStates(log_stats=True)),
        logger_manager=SimpleNamespace(
            stat_loggers=[SimpleNamespace(), SimpleNamespace(gauge_lora_info=gauge)]
        ),
    )
    for _ in range(2):  # the second changes nothing
        show_public_names(client)
    return client


def running(client: Any) -> dict[str, int]:
    stats = SchedulerStats()
    client.output_processor.lora_states.update_scheduler_stats(stats)
    return stats.running_lora_adapters


def test_two_revisions_in_flight_are_counted_under_their_one_name(client: Any) -> None:
    states = client.output_processor.lora_states
    states.request_running("1", OLD.lora_name)
    states.request_running("2", NEW.lora_name)
    states.request_waiting("3", None)
    assert running(client) == {"sql": 2}
    states.request_finished("1", OLD.lora_name)
    assert running(client) == {"sql": 1}
    states.request_finished("2", NEW.lora_name)
    assert running(client) == {}


def test_of_all_label_sets_there_were_the_latest_alone_is_left(client: Any, gauge: Gauge) -> None:
    shown = client.logger_manager.stat_loggers[1].gauge_lora_info
    for number in range(10_000):
        shown.labels(max_lora=2, running_lora_adapters=f"a{number % 999}", waiting_lora_adapters="")
    (metric,) = gauge.collect()
    assert [sample.labels["running_lora_adapters"] for sample in metric.samples] == ["a9"]


def test_where_series_cannot_be_taken_back_none_is_written(gauge: Gauge) -> None:
    LatestSeries(gauge, is_kept=True).labels(max_lora=2).set_to_current_time()
    (metric,) = gauge.collect()
    assert metric.samples == []


def test_without_statistics_there_is_nothing_to_show() -> None:
    states = LoRARequestStates(log_stats=False)
    show_public_names(
        SimpleNamespace(output_processor=SimpleNamespace(lora_states=states), logger_manager=None)
    )
    states.request_running("1", OLD.lora_name)
    assert not states.requests


@pytest.mark.parametrize(
    ("request_", "name"), [(OLD, "sql"), (LoRARequest("static", 1, "/static"), "static")]
)
def test_the_log_of_requests_shows_public_names(
    client: Any, caplog: pytest.LogCaptureFixture, request_: LoRARequest, name: str
) -> None:
    log = logging.getLogger("vllm.entrypoints.serve.utils.request_logger")
    caplog.set_level(logging.INFO, logger=log.name)
    log.addHandler(caplog.handler)
    try:
        request_logger.RequestLogger(max_log_len=None).log_inputs(
            "1", "hello", [1], None, params=None, lora_request=request_
        )
    finally:
        log.removeHandler(caplog.handler)
    assert f"lora_name='{name}'" in caplog.text
    assert request_.lora_name in (name, OLD.lora_name), "the request itself is as it was"


class _Published(EventPublisher):
    """A publisher that keeps what it is given."""

    batches: ClassVar[list[Any]] = []

    def __init__(self, data_parallel_rank: int = 0, **_options: Any) -> None:
        super().__init__(data_parallel_rank)

    def publish(self, events: Any) -> None:
        self.batches.append(events)

    def shutdown(self) -> None:
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    factory = kv_events.EventPublisherFactory
    monkeypatch.setattr(factory, "create", factory.__dict__["create"])  # restored afterwards
    for _ in range(2):
        publish_public_names()
    monkeypatch.setitem(factory._registry, "zmq", _Published)
    config = KVEventsConfig(enable_kv_cache_events=True, publisher="zmq")
    yield factory.create(config, 0)
    _Published.batches.clear()


def stored(name: str | None, keys: list[Any] | None) -> BlockStored:
    return BlockStored([b"1"], None, [1, 2], 2, None, "GPU", name, keys)


def test_kv_events_have_public_names(publisher: Any) -> None:
    removed = BlockRemoved([b"1"], "GPU")
    keys = [(NEW.lora_name, "/store/b"), None, (("mm", f"{NEW.lora_name}:f00d", 3), 7)]
    events = [stored(NEW.lora_name, keys), stored(None, [("salt",)]), stored("static", None), removed]
    publisher.publish(KVEventBatch(ts=1.0, events=events))
    ((first, base, static, last),) = (batch.events for batch in _Published.batches)
    assert first.lora_name == "sql"
    assert first.extra_keys == [("sql", "/store/b"), None, (("mm", "sql:f00d", 3), 7)]
    assert (base.lora_name, base.extra_keys, static.lora_name) == (None, [("salt",)], "static")
    assert last is removed
