"""Feeds one target for a while, in a process of its own.

    python -m tests.fuzz.engine NAME SECONDS DIRECTORY

With atheris, libFuzzer keeps what reaches new code and mutates it further. Without it (atheris has no
build for this Python), seeds are mutated at random: shallow, and enough to replay what was found.
What is printed at the end is libFuzzer's account in both cases, for the driver to read. DIRECTORY holds
`seeds`, `tokens`, what is `known`, and the `corpus` that grows; findings go into `findings`, and an input
that ends the process itself stays in a file `died-...`.
"""

import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.findings import Findings
from tests.fuzz.limits import Limits, TooSlow, arm, bounded
from tests.fuzz.target import MAX_BYTES, Target

LIMITS = Limits()

_INSTRUMENTED = [
    "loradrop.catalog",
    "loradrop.watcher.validation",
    "pickletools",
    "zipfile",
    "tests.fuzz.checks.planted",
]
_HARD_SECONDS = 60
"""When libFuzzer ends a process that hangs where no Python runs."""
_EDITS = 4


def main() -> None:
    """Fuzz the target that the command line names."""
    name, seconds, directory = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    logging.disable()
    try:
        import atheris
    except ImportError:
        from tests.fuzz.registry import target_called

        _at_random(target_called(name), seconds, directory)
        return
    with atheris.instrument_imports(include=_INSTRUMENTED, enable_loader_override=False):
        from tests.fuzz.registry import target_called

        target = target_called(name)  # imports what is to be instrumented
    one = _one(target, directory)
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={_HARD_SECONDS}",
        f"-dict={directory / 'tokens'}",
        f"-artifact_prefix={directory / 'died'}-",
        "-rss_limit_mb=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(directory / "corpus"), str(directory / "seeds")], one)
    atheris.Fuzz()


def failure_of(target: Target, data: bytes, limits: Limits = LIMITS) -> BaseException | None:
    """Return what is wrong with `target` on `data`; None where it holds."""
    try:
        with bounded(limits):
            target.check(data)
    except (Exception, TooSlow) as error:  # noqa: BLE001 - whatever it is, it is a finding
        return error
    return None


def _one(target: Target, directory: Path) -> Callable[[bytes], None]:
    arm(LIMITS)
    findings = Findings(directory / "findings", lambda data: failure_of(target, data))
    for path in sorted((directory / "known").iterdir()):
        findings.recognise(path.read_bytes())

    def one(data: bytes) -> None:
        error = failure_of(target, data)
        if error is not None:
            findings.note(data, error)

    return one


def _at_random(target: Target, seconds: float, directory: Path) -> None:
    one = _one(target, directory)
    dice = random.Random(0)
    seeds = [
        path.read_bytes() for part in ("seeds", "corpus") for path in sorted((directory / part).iterdir())
    ]
    seeds.append(b"")
    executed = 0
    current = directory / "died-now"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        data = seeds[executed] if executed < len(seeds) else _mutated(seeds, target.tokens, dice)
        current.write_bytes(data)
        one(data)
        executed += 1
    current.unlink(missing_ok=True)
    print(f"stat::number_of_executed_units: {executed}", file=sys.stderr)


def _mutated(seeds: list[bytes], tokens: tuple[bytes, ...], dice: random.Random) -> bytes:
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, _EDITS)):
        at, until = sorted(dice.randint(0, len(data)) for _ in range(2))
        match dice.randrange(4):
            case 0:
                data[at:at] = dice.choice(tokens) if tokens else dice.randbytes(1)
            case 1:
                data[at : at + 1] = dice.randbytes(1)
            case 2:
                del data[at:until]
            case _:
                data[at:at] = data[at:until]
    return bytes(data[:MAX_BYTES])


if __name__ == "__main__":
    main()
