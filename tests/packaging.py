"""What is built can be installed and works: `python -m tests.packaging [TESTS ...]`, from a checkout.

Builds the sdist, and the wheel from the sdist. Checks that the wheel holds our modules as files and nothing
else. Then installs wheel, sdist and an editable checkout, each with pip and with uv, into a new virtual
environment, and runs the unit tests against what was installed, outside the checkout. Dependencies are taken
from the environment this runs in, so nothing but the build backend is downloaded.
"""

import os
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "catalog", "cli", "watcher", "worker")
_UNIT = ("-q", "-n", "2", "-p", "no:cacheprovider", "-m", "not e2e and not demo and not faults")
_UV = Path(sys.executable).with_name("uv")


def main(tests: Sequence[str]) -> int:
    """Build, check, install and test; return how many installations failed a test."""
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        _run(_UV, "build", "--quiet", "--out-dir", work / "dist", ROOT)
        [wheel] = (work / "dist").glob("*.whl")
        [sdist] = (work / "dist").glob("*.tar.gz")
        check_wheel(wheel)
        project = _unpacked_tests(sdist, work)
        checkout = _copy_of_checkout(work / "checkout")
        for tool, install in {"pip": _pip, "uv": _uv}.items():
            for kind, target in {"wheel": wheel, "sdist": sdist, "editable": checkout}.items():
                print(f"==> {kind}, installed by {tool}", flush=True)
                python = _environment(work / f"{kind}-{tool}")
                install(python, *(["--editable"] if kind == "editable" else []), target)
                _check_import(python, project, checkout if kind == "editable" else python.parents[1])
                command = [python, "-m", "pytest", *_UNIT, *(tests or ["tests"])]
                ended = subprocess.run(command, check=False, cwd=project, env=_variables())
                failed += ended.returncode != 0
    return failed


def check_wheel(wheel: Path) -> None:
    """Check that `wheel` holds the modules of our packages, as files, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    tops = {entry.filename.partition("/")[0] for entry in entries}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"loradrop"}, tops
    links = [entry.filename for entry in entries if stat.S_ISLNK(entry.external_attr >> 16)]
    assert not links, f"links in the wheel: {links}"
    held = {entry.filename for entry in entries if entry.filename.endswith(".py")}
    wanted = {"loradrop/__init__.py"} | {f"loradrop/{path}" for path in modules()}
    assert held == wanted, held ^ wanted


def modules() -> Iterator[str]:
    """Yield every module of our packages, as a path below the checkout."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT))


def _unpacked_tests(sdist: Path, work: Path) -> Path:
    """Return a directory with all of the sdist but our packages."""
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "tests", filter="data")
    [project] = (work / "tests").iterdir()
    (project / "loradrop").rename(work / "unused")
    return project


def _copy_of_checkout(target: Path) -> Path:
    """Copy what git knows or would add, links as links."""
    listed = _output("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in listed.splitlines():
        source, copy = ROOT / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(source.readlink()) if source.is_symlink() else copy.write_bytes(
                source.read_bytes()
            )
    return target


def _environment(directory: Path) -> Path:
    """Make a virtual environment that finds the dependencies here, and return its Python."""
    _run(sys.executable, "-m", "venv", directory)
    [own] = directory.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "bin" / "python"


def _pip(python: Path, *arguments: str | Path) -> None:
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", *arguments)


def _uv(python: Path, *arguments: str | Path) -> None:
    _run(_UV, "pip", "install", "--quiet", "--python", python, "--no-deps", *arguments)


def _check_import(python: Path, cwd: Path, home: Path) -> None:
    """Check that modules and commands come from below `home`."""
    code = "import loradrop.catalog, loradrop.worker.server; print(loradrop.catalog.__file__)"
    found = _output(python, "-c", code, cwd=cwd)
    assert Path(found.strip()).is_relative_to(home), f"{found} is not below {home}"
    _output(python.with_name("loradrop"), "--help", cwd=cwd)


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, env=_variables())


def _output(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, check=True, cwd=cwd, env=_variables(), capture_output=True, text=True)
    return done.stdout


def _variables() -> dict[str, str]:
    """Return the variables of this process but for those by which a module could come from elsewhere."""
    elsewhere = ("PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
