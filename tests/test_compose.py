"""compose.yaml against the Compose schema and against what it promises; no container engine is needed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from loradrop.catalog.settings import Process
from loradrop.catalog.settings.declared import settings_of
from loradrop.cli.__main__ import app

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_file_follows_the_compose_specification() -> None:
    jsonschema.validate(COMPOSE, get_builtin_schema("vendor.compose-spec"))


def test_redis_keeps_its_append_only_file_on_a_volume() -> None:
    redis = SERVICES["redis"]
    assert redis["command"] == ["redis-server", "--appendonly", "yes"]
    assert redis["volumes"] == ["redis:/data"]
    assert "redis" in COMPOSE["volumes"]
    assert "ping" in redis["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_comes_back_by_itself(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["watcher", "api", "worker"])
def test_everything_else_waits_for_a_healthy_redis(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert SERVICES[name]["environment"]["LORADROP_REDIS_URL"] == "redis://redis:6379/0"


def test_watcher_and_workers_see_one_prefix_and_cannot_write_to_it() -> None:
    prefixes = [mount for mount in SERVICES["watcher"]["volumes"] if ":/loras" in mount]
    assert len(prefixes) == 1
    assert prefixes[0].endswith(":/loras:ro")
    assert prefixes[0] in SERVICES["worker"]["volumes"]
    for name in ("watcher", "worker"):
        assert SERVICES[name]["environment"]["LORADROP_LORA_DIR_PREFIX"] == "/loras"


def test_workers_can_be_scaled() -> None:
    worker = SERVICES["worker"]
    assert "container_name" not in worker
    first, last = host_ports("worker")
    assert last - first >= 7
    assert not first <= host_ports("api")[0] <= last


def test_each_worker_reserves_a_gpu() -> None:
    [device] = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_no_key_is_written_down_and_none_is_made_up() -> None:
    for name in ("api", "worker"):
        assert SERVICES[name]["environment"]["LORADROP_API_KEY"].startswith("${LORADROP_API_KEY:?")


def test_commands_and_variables_are_ones_loradrop_has() -> None:
    commands = set(typer.main.get_command(app).list_commands(None))
    assert {SERVICES[name]["command"][0] for name in ("watcher", "api")} <= commands
    for service, process in (("watcher", Process.WATCH), ("api", Process.API), ("worker", Process.SERVE)):
        assert variables(service) <= {setting.variable for setting in settings_of(process)}


@pytest.mark.e2e
def test_the_workers_flags_are_ones_vllm_has() -> None:
    command = [sys.executable, "-m", "loradrop.worker", "--help=all"]
    known = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    flags = {flag.partition("=")[0] for flag in SERVICES["worker"]["command"]}
    assert flags <= {word.rstrip(",]").lstrip("[") for word in known}


@pytest.mark.parametrize("name", ["watcher", "api", "worker"])
def test_the_images_are_built_from_files_that_are_there(name: str) -> None:
    assert (ROOT / SERVICES[name]["build"]["dockerfile"]).is_file()


def test_the_light_image_does_not_run_as_root() -> None:
    lines = (ROOT / "docker" / "loradrop.Dockerfile").read_text().splitlines()
    assert "USER loradrop" in lines
    assert lines.index("USER loradrop") < lines.index('ENTRYPOINT ["loradrop"]')


def test_the_build_context_holds_what_the_package_is_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = {"loradrop", "catalog", "watcher", "worker", "api", "cli"}
    assert admitted == packages | {"pyproject.toml", "README.md", "LICENSE"}


def host_ports(service: str) -> tuple[int, int]:
    """Return the first and last host port a service publishes on by default."""
    [published] = SERVICES[service]["ports"]
    ports = re.search(r"(?P<first>\d+)(-(?P<last>\d+))?\}?:\d+$", published)
    assert ports
    return int(ports["first"]), int(ports["last"] or ports["first"])


def variables(service: str) -> set[str]:
    """Return the variables of ours that a service is given."""
    return {name for name in SERVICES[service]["environment"] if name.startswith("LORADROP_")}
