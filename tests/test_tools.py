"""mypy, import-linter and coverage look at every module: a tool that lost sight of some would still pass."""

import subprocess
import sys
import tomllib
from pathlib import Path

import coverage
import grimp
import pytest
from mypy.find_sources import create_source_list
from mypy.options import Options

from tests.packaging import PACKAGES, ROOT, modules

if not (ROOT / "watcher").is_dir():
    pytest.skip("not a checkout: the tools look at checkouts", allow_module_level=True)

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


_SCRIPT = """
import subprocess, sys
import loradrop.watcher.settings
subprocess.run([sys.executable, "-W", "ignore", "-m", "loradrop.watcher", "--help"], check=True)
"""


def test_mypy_and_import_linter_see_every_module(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {_dotted(path) for path in modules()} | {"loradrop"}
    monkeypatch.chdir(ROOT)
    options = Options()
    options.explicit_package_bases = CONFIG["mypy"]["explicit_package_bases"]
    options.mypy_path = [str(ROOT)]
    typed = {source.module for source in create_source_list(CONFIG["mypy"]["files"], options)}
    [root_package] = CONFIG["importlinter"]["root_packages"]
    linted = grimp.build_graph(root_package, cache_dir=None).modules
    assert typed >= wanted
    assert linted == wanted


def test_coverage_counts_every_module_and_children_under_the_same_files(tmp_path: Path) -> None:
    script, data = tmp_path / "script.py", tmp_path / "coverage"
    script.write_text(_SCRIPT)
    run = [sys.executable, "-W", "ignore", "-m", "coverage", "run", "--data-file", str(data), str(script)]
    subprocess.run(run, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    measured = coverage.Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml"))
    measured.combine([str(tmp_path)])
    found = {str(Path(file).relative_to(ROOT)) for file in measured.get_data().measured_files()}
    assert found == set(modules())
    lines = measured.get_data().lines(str(ROOT / "watcher" / "__main__.py"))
    assert lines, "the child was not measured"


def test_every_package_has_a_link_below_the_import_name() -> None:
    links = {path.name for path in (ROOT / "loradrop").iterdir() if path.is_symlink()}
    assert links == set(PACKAGES)


def test_benchmarks_use_no_tests() -> None:
    users = [path for path in (ROOT / "bench").rglob("*.py") if "from tests" in path.read_text()]
    assert users == []


def _dotted(path: str) -> str:
    return f"loradrop.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
