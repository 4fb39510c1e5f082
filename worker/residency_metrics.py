"""Which adapters are in the engine, in the shapes that routers read.

`loradrop_lora_requests_info` has the labels of `vllm:lora_requests_info`, which endpoint pickers read from
one sample: adapters that answer at once, those that wait to be loaded, and how many places there are. vLLM
names those of requests under way alone, so a router forgets what is resident and idle. Commas part the names
there, so one that holds any is left out.

`loradrop_lora_adapter_loaded` is one sample an adapter, as vLLM's proposal has it (vllm-project/vllm#54830).
Both are computed when they are asked for, so that no series outlives its adapter.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry


@dataclass(frozen=True, slots=True)
class Residents:
    """The names that answer at once, used last first; `on_device` of them can be in a batch as they are."""

    names: tuple[str, ...]
    waiting: tuple[str, ...]
    places: int
    on_device: int


class ResidencyCollector(Collector):
    """What `residents` returns, as metrics."""

    def __init__(self, residents: Callable[[], Residents], *, clock: Callable[[], float] = time.time) -> None:
        """Collect from `residents`; `clock` is the time of the one sample, in seconds since the epoch."""
        self._residents = residents
        self._clock = clock

    def describe(self) -> list[GaugeMetricFamily]:
        """Return the metrics without samples: registering them asks nothing."""
        return [_requests_info(), _adapter_loaded()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the metrics as they are now."""
        residents = self._residents()
        info, loaded = _requests_info(), _adapter_loaded()
        running, waiting = (_listed(names) for names in (residents.names, residents.waiting))
        info.add_metric([str(residents.places), running, waiting], self._clock())
        for number, name in enumerate(residents.names):
            loaded.add_metric([name, "gpu" if number < residents.on_device else "cpu", "false"], 1)
        yield from (info, loaded)


def registered(collector: ResidencyCollector, registry: CollectorRegistry) -> Callable[[], None]:
    """Register `collector`, and return what takes it out again."""
    registry.register(collector)
    return lambda: registry.unregister(collector)


def _requests_info() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "loradrop_lora_requests_info",
        "When this was collected. Labels: adapters that are resident, those that wait to be, and places.",
        labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
    )


def _adapter_loaded() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "loradrop_lora_adapter_loaded",
        "1 for each adapter in the engine; level gpu: used last, in a slot; cpu: in memory beside.",
        labels=["adapter_name", "level", "pinned"],
    )


def _listed(names: tuple[str, ...]) -> str:
    return ",".join(name for name in names if "," not in name)
