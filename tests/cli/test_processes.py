"""`serve`, `watch` and `api` start the processes, with every argument as it was typed."""

import subprocess
import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from loradrop.catalog.settings import Process
from loradrop.catalog.settings.declared import settings_of
from loradrop.cli import processes
from loradrop.cli.__main__ import app


class Recorder(ModuleType):
    """A process's module that only remembers what it was started with."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.arguments: list[str] = []

    def main(self, arguments: list[str]) -> int:
        self.arguments = arguments
        return 7


def find_nothing(_name: str) -> None:
    return None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--model", "m", "--lora-dir-prefix=p", "-tp", "2", "--", "x"],
        ["some/model", "--lora-modules", "a=b", '{"name": "c", "path": "d"}'],
        [],
    ],
)
def test_serve_hands_every_argument_on_and_ends_as_the_worker_does(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    worker = Recorder()
    monkeypatch.setitem(sys.modules, "loradrop.worker.__main__", worker)
    monkeypatch.setattr(processes, "find_spec", lambda name: name)
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert (worker.arguments, result.exit_code) == (arguments, 7)


def test_serve_without_vllm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", find_nothing)
    result = CliRunner().invoke(app, ["serve", "--model", "m"])
    assert result.exit_code == 2
    assert "pip install loradrop[vllm]" in result.stderr


@pytest.mark.parametrize("process", [Process.WATCH, Process.API])
def test_the_help_of_a_process_names_every_flag_in_full_every_variable_and_every_default(
    process: Process,
) -> None:
    result = CliRunner().invoke(app, [process, "--help"], env={"COLUMNS": "60"})
    assert result.exit_code == 0
    assert f"loradrop {process}" in result.output
    shown = "".join(result.output.split())
    for setting in settings_of(process):
        if not setting.is_secret:
            assert f"{setting.flag(process)}" in result.output
            assert setting.variable in shown
            assert setting.shown_default.replace(" ", "") in shown


def test_a_flag_may_not_be_shortened() -> None:
    assert CliRunner().invoke(app, ["watch", "--lora-dir", "loras"]).exit_code == 2


def test_the_command_lists_its_commands_and_its_version() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    for command in ("serve", "watch", "api", "ls", "status", "refresh", "wait", "validate"):
        assert f" {command} " in result.output
    assert CliRunner().invoke(app, ["--version"]).output.startswith("loradrop")
    assert CliRunner().invoke(app, ["nope"]).exit_code == 2


def test_asking_the_api_imports_nothing_that_only_processes_need() -> None:
    heavy = ("vllm", "torch", "fastapi", "redis", "watchdog", "asyncinotify", "httpx", "uvicorn")
    code = (
        "import sys; from typer.testing import CliRunner; from loradrop.cli.__main__ import app; "
        "CliRunner().invoke(app, ['ls', '--api-url', 'http://127.0.0.1:1']); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
