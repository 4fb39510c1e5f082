"""Bounds on one input: processor time, and memory beyond what the process held before.

Processor time, since a busy machine makes every input slow by the clock. The memory is the kernel's own
high-water mark, which can be reset and costs microseconds; tracing each allocation would take most of the
time. Where the kernel keeps none (it is Linux's), memory is bounded by the address space alone.
"""

import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
_KIB = 1 << 10


class TooSlow(BaseException):
    """An input takes longer than it may. No Exception: the code under test must not swallow it."""


class TooLarge(Exception):
    """An input made the process grow by more than it may."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one input may cost."""

    seconds: float = 2.0
    """Of processor time; an input of 64 KiB takes milliseconds."""
    peak_bytes: int = 64 << 20
    address_bytes: int = 2 << 30
    """Above what is mapped already; beyond it, allocating fails."""


@contextmanager
def bounded(limits: Limits) -> Iterator[None]:
    """Raise TooSlow or TooLarge where the block takes more than `limits` allow."""
    _reset_peak()
    before, _ = _held_bytes()
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    _, peak = _held_bytes()
    if peak - before > limits.peak_bytes:
        raise TooLarge(f"{(peak - before) >> 20} MiB for one input")


def arm(limits: Limits) -> None:
    """Make this process ready for `bounded`; to be called once, in its main thread."""
    signal.signal(signal.SIGPROF, _too_slow)
    if _STATUS.exists():
        mapped = int(re.findall(r"VmSize:\s+(\d+)", _STATUS.read_text())[0]) * _KIB
        resource.setrlimit(resource.RLIMIT_AS, (mapped + limits.address_bytes, resource.RLIM_INFINITY))


def _too_slow(_number: int, _frame: object) -> None:
    raise TooSlow("the input took more processor time than it may")


def _reset_peak() -> None:
    if _CLEAR.exists():
        _CLEAR.write_text(_RESET_PEAK)


def _held_bytes() -> tuple[int, int]:
    """Return what this process holds now, and the most it has held since the peak was reset."""
    if not _STATUS.exists():
        return 0, 0
    text = _STATUS.read_text()
    found = {name: int(kib) * _KIB for name, kib in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", text)}
    return found["VmRSS"], found["VmHWM"]
