"""`loradrop` is the only import name: no module of ours exists twice, and none is hidden by a user's own."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("api", "catalog", "cli", "watcher", "worker")
ROOT = Path(__file__).parents[1]

MODULES_OF_ALL_PROCESSES = """
import sys
import loradrop.watcher.watcher, loradrop.watcher.__main__, loradrop.api.__main__, loradrop.cli.__main__
import loradrop.worker.worker, loradrop.worker.settings
print(*sorted(name for name in sys.modules if name.partition(".")[0] in {packages}))
"""


def test_no_module_of_ours_is_imported_twice() -> None:
    code = MODULES_OF_ALL_PROCESSES.format(packages=PACKAGES)
    command = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("package", ["watcher", "api", "cli", "worker"])
def test_a_process_starts_beside_modules_of_the_users_own(package: str, tmp_path: Path) -> None:
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the user's own')")
    command = [sys.executable, "-W", "ignore", "-m", f"loradrop.{package}", "--help"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "usage" in ended.stdout.lower()


@pytest.mark.skipif(not (ROOT / "watcher").is_dir(), reason="not a checkout: tests of an installed package")
@pytest.mark.parametrize("package", ["watcher", "api"])
def test_a_process_starts_from_a_checkout(package: str) -> None:
    command = [sys.executable, "-m", package, "--help"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
