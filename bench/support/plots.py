"""Plots of what was measured: loradrop in blue, the least that could do the job in greys and orange."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.support.tables import percentile

Seconds = Mapping[str, Sequence[float]]
"""What each way of doing the same took, each time."""

OURS = ("tab:blue", "tab:cyan")
OTHERS = ("0.65", "tab:orange", "0.35")
_LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
_BAR = 0.35
"""How wide a bar is, where two groups of bars are 1 apart."""


def plot_drops(drops: Mapping[int, Seconds], file: Path, adapters: int) -> None:
    """Draw how long after a drop the last of so many followers lists it."""
    figure = _figure(f"From drop to listed, beside {adapters:,} adapters", height=4.6)
    panels = figure.subplots(1, len(drops), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (count, seconds) in zip(panels, drops.items(), strict=True):
        _distributions(panel, seconds)
        panel.set_title("1 follower" if count == 1 else f"the last of {count} followers", fontsize="medium")
    panels[0].set_ylabel("share of drops")
    figure.savefig(file)


def plot_refreshes(seconds: Seconds, file: Path, adapters: int, followers: int) -> None:
    """Draw how long a refresh takes until every follower has observed it."""
    figure = _figure(f"A refresh of {adapters:,} adapters, until {followers} followers have observed it")
    panel = figure.subplots()
    _distributions(panel, seconds)
    panel.set_ylabel("share of refreshes")
    figure.savefig(file)


def plot_starts(
    starts: Mapping[int, Seconds], catching_up: Mapping[int, Seconds], file: Path, adapters: int
) -> None:
    """Draw how long followers take to list a whole catalog, and to catch up with as many events."""
    figure = _figure("Until the last follower is in step: median, least and most of all rounds")
    left, right = figure.subplots(1, 2)
    _ratios(left, starts, f"start on {adapters:,} adapters")
    _ratios(right, catching_up, f"catch up with {adapters:,} missed events")
    figure.savefig(file)


def _figure(title: str, *, height: float = 4.2) -> Figure:
    figure = Figure(figsize=(9, height), dpi=110, layout="constrained", facecolor="white")
    figure.suptitle(title)
    return figure


def _colours(ways: Sequence[str]) -> dict[str, str]:
    ours, others = iter(OURS), iter(OTHERS)
    return {way: next(ours if way.startswith("loradrop") else others) for way in ways}


def _distributions(panel: Axes, seconds: Seconds) -> None:
    colours = _colours(list(seconds))
    for way, values in seconds.items():
        p50, p99 = (1000 * moment for moment in (statistics.median(values), percentile(values, 99)))
        label = f"{way}\np50 {p50:.1f} ms, p99 {p99:.1f} ms"
        panel.ecdf([1000 * value for value in values], color=colours[way], label=label, linewidth=2)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlabel("ms")
    panel.grid(alpha=0.3, which="both")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize="small", frameon=False)


def _ratios(panel: Axes, seconds: Mapping[int, Seconds], title: str) -> None:
    """Draw, round by round, how many times as long as the first way each other way took."""
    first, *others = next(iter(seconds.values()))
    for number, (way, colour) in enumerate(_colours(others).items()):
        rounds = [_quotients(one[way], one[first]) for one in seconds.values()]
        middles = [statistics.median(ratios) for ratios in rounds]
        reach = [
            [middle - min(ratios) for middle, ratios in zip(middles, rounds, strict=True)],
            [max(ratios) - middle for middle, ratios in zip(middles, rounds, strict=True)],
        ]
        places = [group + (number - 0.5) * _BAR for group in range(len(rounds))]
        bars = panel.bar(places, middles, _BAR, color=colour, label=way, yerr=reach, ecolor="0.2", capsize=2)
        panel.bar_label(bars, fmt="%.2f", label_type="center", fontsize="small", bbox=_LABEL)
    panel.axhline(1, color="0.3", linestyle="--", linewidth=1, label=first)
    ticks = [f"{count}\n({1000 * statistics.median(one[first]):.0f} ms)" for count, one in seconds.items()]
    panel.set_xticks(range(len(ticks)), ticks)
    panel.set_xlabel(f"followers at once (median of {first})")
    panel.set_ylabel(f"times as long as {first}")
    panel.set_title(title, fontsize="medium")
    panel.margins(y=0.3)
    panel.legend(fontsize="small", ncols=3, loc="upper center", frameon=False, columnspacing=1)


def _quotients(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value / other for value, other in zip(values, others, strict=True)]
