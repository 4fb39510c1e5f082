"""A scenario's table: each quantity after the warm-up, at the end, and what is between the two."""

from collections.abc import Iterable

from tests.soak.judge import Growth


def table(growths: Iterable[Growth]) -> str:
    """Return a table as text, one line a quantity; what grew too much is marked."""
    head = f"{'':32} {'after warm-up':>14} {'at the end':>14} {'change':>8} {'per 1,000 events':>17}"
    return "\n".join([head, *(_line(growth) for growth in growths)])


def _line(growth: Growth) -> str:
    name = f"{growth.quantity.who} {growth.quantity.what}"
    unit = growth.quantity.unit
    name = f"{name} ({unit})" if unit else name
    number = ".2f" if unit else "g"
    return (
        f"{name:32} {growth.first:14{number}} {growth.last:14{number}} {growth.share:+8.1%}"
        f" {growth.per_thousand_events:+17.4f}{'' if growth.is_tolerated else '  GREW'}"
    )
