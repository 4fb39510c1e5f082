"""The watcher's numbers for Prometheus, on a port of its own. The only user of prometheus_client here."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loradrop.catalog.settings import SettingsInvalid
from loradrop.watcher.state.counters import Histogram
from loradrop.watcher.watcher import Watcher


class WatcherCollector(Collector):
    """Reads the numbers at each scrape."""

    def __init__(self, watcher: Watcher) -> None:
        """Show what `watcher` counts and says of itself."""
        self._watcher = watcher

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        counts, status = self._watcher.counters, self._watcher.status()
        for name, help_text, value in (
            ("notifications", "Hints heard from the notifier.", counts.notifications),
            ("hints_coalesced", "Hints whose look was due already.", counts.coalesced),
            ("examined", "Looks at a single adapter.", counts.examined),
            ("examined_seconds", "Seconds that threads spent looking and reading.", counts.examined_seconds),
            ("digested_bytes", "Bytes of adapters read in full.", counts.digested_bytes),
            ("scan_changed", "Adapters that scans found to look different.", counts.scan_changed),
            ("scan_failures", "Scans that could not read the prefix.", counts.scan_failures),
            ("degraded_seconds", "Seconds spent degraded.", counts.degraded_seconds),
        ):
            yield CounterMetricFamily(f"loradrop_watcher_{name}", help_text, value=value)
        yield _histogram("scan_seconds", "Seconds a scan of the prefix took.", counts.scan_seconds)
        yield _histogram(
            "publish_seconds",
            "Seconds from the first hint to the published revision.",
            counts.publish_seconds,
        )
        degraded = GaugeMetricFamily("loradrop_watcher_degraded", "1 while degraded.", labels=["reason"])
        if status.degraded is not None:
            degraded.add_metric([status.degraded.code], 1)
        yield degraded
        adapters = GaugeMetricFamily(
            "loradrop_watcher_adapters", "Adapters by what the disk says.", labels=["state", "reason"]
        )
        for (state, reason), count in self._watcher.reasons().items():
            adapters.add_metric([state, reason], count)
        yield adapters


@contextmanager
def served(collector: WatcherCollector, *, host: str, port: int) -> Iterator[int]:
    """Serve `/metrics` on `port` (0: any free one) for the length of the block, and yield the port.

    Raises SettingsInvalid where it cannot be opened.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsInvalid(
            f"--metrics-port {port} cannot be opened on {host}: {error.strerror}. Name a free one."
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _histogram(name: str, help_text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(
        f"loradrop_watcher_{name}", help_text, buckets=histogram.buckets(), sum_value=histogram.sum
    )
