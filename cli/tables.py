"""How answers look in a terminal: tables that say at a glance what is served, and what is not and why."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from loradrop.catalog.printable import printable
from loradrop.cli.bodies import AdapterBody, OnWorkerBody, ReasonBody, WorkerBody

Body = Mapping[str, Any]

_STYLES = {
    "ready": "green",
    "loaded": "green",
    "listed": "",
    "loading": "cyan",
    "settling": "cyan",
    "incomplete": "yellow",
    "draining": "yellow",
    "unknown": "yellow",
    "failed": "red",
    "rejected": "red",
}
_SERVING = ("listed", "loading", "loaded")
_SHOWN_DIGITS = 12
_PIPE_WIDTH = 500


def console() -> Console:
    """Return a console on standard output that does not wrap what is piped into another program."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def print_json(body: Any) -> None:
    """Print a body as JSON, indented, in ASCII: what a terminal would obey is escaped."""
    sys.stdout.write(json.dumps(body, indent=2) + "\n")


def say(text: str) -> None:
    """Print a sentence, or several lines of them, from anywhere."""
    typer.echo(printable(text, keep="\n"))  # noqa: TID251 - here it is escaped


def complain(text: str) -> None:
    """Print why a command fails."""
    typer.secho(printable(text, keep="\n"), fg="red", err=True)  # noqa: TID251 - here it is escaped


def adapters_table(adapters: Sequence[AdapterBody], workers_total: int) -> RenderableType:
    """Return one row for each adapter."""
    table = _table("NAME", "STATE", "REVISION", ">RANK", ">SIZE", "WORKERS", "REASON")
    for adapter in adapters:
        table.add_row(
            plain(adapter["id"]),
            state_text(adapter["state"]),
            plain((adapter["revision"] or "-")[:_SHOWN_DIGITS]),
            "-" if adapter["rank"] is None else str(adapter["rank"]),
            decimal(adapter["size_bytes"]) if adapter["size_bytes"] else "-",
            workers_text(adapter["workers"], workers_total),
            plain(_why(adapter)),
        )
    return table


def workers_table(workers: Sequence[WorkerBody]) -> RenderableType:
    """Return one row for each worker."""
    table = _table("WORKER", "BASE MODEL", "URL", ">SEQ", ">LAG", "ADAPTERS", ">HEARTBEAT")
    for worker in workers:
        lag = worker["lag"]
        table.add_row(
            plain(worker["id"]),
            plain(worker["base_model"]),
            plain(worker["url"]),
            str(worker["observed_seq"]),
            Text(str(lag), style="yellow" if lag else "green"),
            counts_text(worker["adapters"]),
            f"{age(worker['last_heartbeat'])} ago",
        )
    return table


def validations_table(validations: Sequence[Body]) -> RenderableType:
    """Return one row for each adapter that was checked."""
    table = _table("NAME", "", "REVISION", "FORMAT", ">RANK", ">SIZE", "REASON")
    for validation in validations:
        table.add_row(
            plain(validation["id"]),
            Text("accepted", "green") if validation["accepted"] else state_text(validation["state"]),
            (validation["revision"] or "-")[:_SHOWN_DIGITS],
            validation["format"] or "-",
            "-" if validation["rank"] is None else str(validation["rank"]),
            "-" if validation["size_bytes"] is None else decimal(validation["size_bytes"]),
            plain(reason_text(validation["reason"])),
        )
    return table


def reasons_table(rows: Sequence[tuple[str, Text, str]]) -> RenderableType:
    """Return one row for each (name, outcome, reason)."""
    table = _table("NAME", "", "REASON")
    for name, outcome, reason in rows:
        table.add_row(plain(name), outcome, plain(reason))
    return table


def workers_text(workers: Mapping[str, OnWorkerBody], total: int) -> Text:
    """Return `2/3 loaded 1`: offered by two of three workers, in the engine of one."""
    if not total:
        return Text("-")
    states = [on_worker["state"] for on_worker in workers.values()]
    serving = sum(state in _SERVING for state in states)
    text = Text(f"{serving}/{total}", style="green" if serving == total else "yellow")
    for state in ("loaded", "loading", "draining", "failed", "rejected"):
        if count := states.count(state):
            text.append(f" {state} {count}", _STYLES[state])
    return text


def counts_text(counts: Mapping[str, int]) -> Text:
    """Return `listed 3 loaded 1`."""
    text = Text(" ").join(
        plain(f"{state} {count}", _STYLES.get(state, "")) for state, count in counts.items() if count
    )
    return text or Text("-")


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return plain(state, _STYLES.get(state, ""))


def reason_text(reason: ReasonBody | None) -> str:
    """Return `code: message`, or nothing."""
    return "" if reason is None else f"{reason['code']}: {reason['message']}"


def age(timestamp: str) -> str:
    """Return how long ago an RFC 3339 timestamp was, in words short enough for a column."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:  # of the right shape, and no day of any calendar
        return "?"
    seconds = max(0.0, (datetime.now(UTC) - then).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def plain(text: str, style: str = "") -> Text:
    """Return text from elsewhere without anything a terminal would obey."""
    return Text(printable(text, keep="\n"), style)


def _why(adapter: AdapterBody) -> str:
    """Return why it is not ready, else the first reason a worker has for not serving it."""
    if adapter["reason"]:
        return reason_text(adapter["reason"])
    for worker_id, on_worker in adapter["workers"].items():
        if on_worker["reason"]:
            return f"{worker_id}: {reason_text(on_worker['reason'])}"
    return ""


def _table(*headers: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(
            header.lstrip(">"),
            justify="right" if header.startswith(">") else "left",
            overflow="fold",
            no_wrap=header not in ("REASON", "WORKERS", "ADAPTERS"),
        )
    return table
