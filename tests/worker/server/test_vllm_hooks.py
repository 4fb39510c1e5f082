"""Our flags on vLLM's own command line, in a process of its own: registering changes vLLM's classes."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = """
import json, os
from loradrop.worker.server.vllm_hooks import register
register()
register()
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
import vllm.plugins
parser = make_arg_parser(FlexibleArgumentParser())
again = make_arg_parser(FlexibleArgumentParser())
flags = [option for action in parser._actions for option in action.option_strings]
given = parser.parse_args(["--model", "m", "--enable-lora", "--lora-dir-prefix", "/p",
    "--lora-discovery-interval", "300", "--max-loras", "10", "--no-allow-pickle"])
left_out = again.parse_args(["--model", "m"])
from loradrop.worker.settings import settings_from
names = [plugin.name for plugin in vllm.plugins.load_endpoint_plugins(("generate",))]
os.environ["VLLM_PLUGINS"] = "loradrop"
twice = [plugin.name for plugin in vllm.plugins.load_endpoint_plugins(("generate",))]
del os.environ["VLLM_PLUGINS"]
print(json.dumps({
    "prefixes": flags.count("--lora-dir-prefix"),
    "lora_flags": flags.count("--max-loras"),
    "given": [given.lora_dir_prefix, given.lora_discovery_interval, given.allow_pickle, given.max_loras],
    "asked_for": [settings_from(given, {}).asked_for, settings_from(left_out, {}).asked_for],
    "plugins": names,
    "plugins_by_name": twice,
    "variable": os.environ.get("VLLM_PLUGINS"),
}))
"""


BATCH = ("vllm.entrypoints.openai.run_batch", "-i", "in", "-o", "out", "--model", "m")
SERVE = ("loradrop.worker", "--model", "m", "--enable-lora")
VLLM_SERVE = ("vllm.entrypoints.openai.api_server", "--model", "m", "--enable-lora")
PREFIX = ("--lora-dir-prefix", "/p")


@pytest.mark.parametrize(
    ("command", "variables", "said"),
    [
        ((*BATCH, *PREFIX), {}, "argument --lora-dir-prefix: this command runs no server"),
        (
            (*SERVE, *PREFIX),
            {"VLLM_SKIP_MODEL_NAME_VALIDATION": "1"},
            "answer for adapters from the base weights",
        ),
        ((*SERVE, *PREFIX), {"VLLM_USE_RUST_FRONTEND": "1"}, "Rust front end runs no plugin"),
        (
            VLLM_SERVE,
            {"VLLM_USE_RUST_FRONTEND": "1", "LORADROP_LORA_DIR_PREFIX": "/p"},
            "Rust front end runs no plugin",
        ),
    ],
    ids=["run-batch", "any name", "Rust front end", "Rust front end and a variable"],
)
def test_what_would_not_follow_a_prefix_is_refused_before_anything_is_loaded(
    command: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr[-2000:]


@pytest.fixture(scope="module")
def registered() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_our_flags_are_there_once_beside_all_of_vllms(registered: dict[str, Any]) -> None:
    assert (registered["prefixes"], registered["lora_flags"]) == (1, 1)


def test_the_seeds_own_command_line_is_understood(registered: dict[str, Any]) -> None:
    assert registered["given"] == ["/p", "300", False, 10]
    assert registered["asked_for"] == [True, False]


def test_our_endpoint_plugin_is_loaded_once_and_vllms_variable_is_left_alone(
    registered: dict[str, Any],
) -> None:
    assert registered["plugins"] == ["loradrop"]
    assert registered["plugins_by_name"] == ["loradrop"]
    assert registered["variable"] is None
