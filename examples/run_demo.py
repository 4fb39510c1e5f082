"""Serve the demo: what ``make run`` ends in.

Starts ``loradrop serve`` on the demo model with one adapter in the prefix, says how it is coming along, and
prints commands to paste once both ports answer. From then on it only waits: the server is a member of the
same process group, so a Ctrl-C reaches it directly, and a SIGTERM is passed on.

Making the virtual environment and the model is the Makefile's part, and so is the directory: the repository.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

DEMO = "demo"
LORADROP = ".venv/bin/loradrop"
ADAPTERS = Path("examples/adapters")
PROGRESS_SECONDS = 5
POLL_SECONDS = 0.25
STOPPED_BY_HAND = {0, 128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM}

# What a laptop's CPU has room for; a GPU is left to vLLM's own defaults.
CPU_FLAGS = ["--dtype=bfloat16", "--max-model-len=1024", "--block-size=32", "--kv-cache-memory-bytes=256M"]


@dataclass(frozen=True, slots=True)
class Demo:
    """Which model is served where, and from which directories."""

    model: str
    prefix: Path
    state: Path
    port: int
    api_port: int

    @property
    def is_ours(self) -> bool:
        """Whether this is the demo model, which the adapters in ``examples/`` fit."""
        return self.model == DEMO

    @property
    def model_name(self) -> str:
        """What requests for the base model call it."""
        return "smollm2" if self.is_ours else self.model

    @property
    def url(self) -> str:
        """Where vLLM answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.api_port}"


def main() -> int:
    """Serve until the server ends; returns its exit status."""
    demo = parse_arguments()
    demo.prefix.mkdir(parents=True, exist_ok=True)
    if demo.is_ours and not any(demo.prefix.glob("[!.]*")):
        publish(ADAPTERS / "sql_adapter", demo.prefix)

    server = subprocess.Popen(serve_command(demo))
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    # A terminal sends SIGINT to the whole process group: the server has its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if wait_until_ready(demo, server):
        print(banner(demo), flush=True)
    elif server.returncode not in STOPPED_BY_HAND:
        say(f"The server ended with status {server.returncode} before it was ready; the lines above say why.")
        say("A port in use? Choose others: make run PORT=8010 API_PORT=8011")
    status = server.wait()
    return status if status >= 0 else 128 - status


def parse_arguments() -> Demo:
    """Read the command line; the Makefile names the defaults."""
    parser = argparse.ArgumentParser(description="Serve the demo.")
    parser.add_argument("--model", required=True, help="'demo', or anything vLLM takes as --model")
    parser.add_argument("--prefix", required=True, type=Path, help="directory to drop adapters in")
    parser.add_argument("--state", required=True, type=Path, help="directory for the embedded server's state")
    parser.add_argument("--port", required=True, type=int, help="vLLM's port")
    parser.add_argument("--api-port", required=True, type=int, help="the API's port")
    return Demo(**vars(parser.parse_args()))


def publish(adapter: Path, prefix: Path) -> None:
    """Copy ``adapter`` into ``prefix`` the safe way: aside under a hidden name, then one rename."""
    aside = prefix / f".{adapter.name}.tmp"
    shutil.copytree(adapter, aside, dirs_exist_ok=True)
    aside.rename(prefix / adapter.name)


def serve_command(demo: Demo) -> list[str]:
    """Return the ``loradrop serve`` command line."""
    command = [LORADROP, "serve"]
    command += ["--model", "demo/model" if demo.is_ours else demo.model]
    command += ["--served-model-name", demo.model_name]
    command += ["--host", "127.0.0.1", "--port", str(demo.port), "--api-port", str(demo.api_port)]
    command += ["--lora-dir-prefix", str(demo.prefix)]
    command += ["--lora-state-dir", str(demo.state), "--lora-cache-dir", str(demo.state / "revisions")]
    command += ["--enable-lora", "--max-loras", "4", "--max-lora-rank", "16", "--max-cpu-loras", "16"]
    return command if shutil.which("nvidia-smi") else command + CPU_FLAGS


def wait_until_ready(demo: Demo, server: "subprocess.Popen[bytes]") -> bool:
    """Return True once vLLM and the API answer, False when the server ended first."""
    started = time.monotonic()
    said = started
    while server.poll() is None:
        if answers(f"{demo.url}/v1/models") and answers(f"{demo.api_url}/readyz"):
            return True
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS:
            said = now
            say(f"{demo.model_name} is loading: {now - started:.0f} s")
        time.sleep(POLL_SECONDS)
    return False


def answers(url: str) -> bool:
    """Return whether a GET of ``url`` succeeds, or is refused only for want of a key."""
    try:
        response = httpx.get(url)
    except httpx.TransportError:
        return False
    return response.is_success or response.status_code == httpx.codes.UNAUTHORIZED


def banner(demo: Demo) -> str:
    """Return what to try next, as text."""
    rule = "=" * 100
    head = f"\n{rule}\nReady. Try these in a second terminal, from this directory:\n"
    return "\n".join([head, *(f"{title}\n    {command}\n" for title, command in suggestions(demo)), rule])


def suggestions(demo: Demo) -> Iterator[tuple[str, str]]:
    """Yield a title and a command for everything worth trying, in order."""
    redis_url = max(demo.state.glob("default-*/redis.url"), key=lambda path: path.stat().st_mtime)
    redis = f"redis-cli -u {redis_url.read_text().strip()}"
    yield "Ask the base model:", chat(demo, demo.model_name, "What is your favourite food?")
    if demo.is_ours:
        yield "Ask the SQL adapter:", chat(demo, "sql_adapter", "Show all orders above 100 euros")
        yield "Drop another adapter:", f"cp -r {ADAPTERS}/pirate_adapter {demo.prefix}/"
        yield "It is there:", f"curl -s {demo.url}/v1/models"
        yield "Ask it:", chat(demo, "pirate_adapter", "What is your favourite food?")
        yield "Take it away:", f"rm -r {demo.prefix}/pirate_adapter"
    else:
        yield "Drop an adapter of yours:", f"cp -r MY_ADAPTER {demo.prefix}/"
        yield "It is there:", f"curl -s {demo.url}/v1/models"
    refresh = "-H 'Content-Type: application/json' -d '{}'"
    yield "Look at the disk now:", f"curl -s -X POST {demo.url}/v1/refresh_lora_discovery {refresh}"
    yield "Who serves what:", f"{LORADROP} status --api-url {demo.api_url}"
    yield "Every adapter, and what is wrong with it:", f"{LORADROP} ls --api-url {demo.api_url}"
    yield "The catalog in Redis:", f"{redis} HGETALL 'loradrop:{{default}}:adapters'"
    yield "Its events, as they happen:", f"{redis} XREAD BLOCK 0 STREAMS 'loradrop:{{default}}:events' '$'"
    yield "Stop everything:", "Ctrl-C here"


def chat(demo: Demo, model: str, question: str) -> str:
    """Return a curl command that asks ``model``."""
    message = f'{{"role": "user", "content": "{question}"}}'
    body = f'{{"model": "{model}", "messages": [{message}], "max_tokens": 40, "temperature": 0}}'
    return f"curl -s {demo.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"[demo] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
