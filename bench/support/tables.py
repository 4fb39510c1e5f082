"""Tables of what was measured: medians, and their ratios within the run."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds each way took in each round; they take turns, so that all meet the same noise."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def show_ratios(title: str, seconds: Mapping[str, Sequence[float]], *against: str) -> None:
    """Print medians in ms, and the median ratio, round by round, to each way named in `against`."""
    print(f"\n## {title}\n")
    print(f"| way | ms | {' | '.join(f'x {name}' for name in against)} |\n|---|---|{'---|' * len(against)}")
    for name, values in seconds.items():
        ratios = " | ".join(f"{ratio(values, seconds[other]):.2f}" for other in against)
        print(f"| {name} | {1000 * statistics.median(values):.1f} | {ratios} |", flush=True)


def show_latencies(title: str, seconds: Mapping[str, Sequence[float]], against: str) -> None:
    """Print median and p99 in ms, and the ratio of each to that of `against`."""
    print(f"\n## {title}\n")
    print(f"| way | drops | p50 ms | p99 ms | p50 x {against} | p99 x {against} |\n|---|---|---|---|---|---|")
    base = seconds[against]
    for name, values in seconds.items():
        p50, p99 = statistics.median(values), percentile(values, 99)
        ratios = f"{p50 / statistics.median(base):.2f} | {p99 / percentile(base, 99):.2f}"
        print(f"| {name} | {len(values)} | {1000 * p50:.2f} | {1000 * p99:.2f} | {ratios} |", flush=True)


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios, pair by pair: what was measured together is compared."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of all do not exceed."""
    return sorted(values)[int(percent / 100 * (len(values) - 1))]
