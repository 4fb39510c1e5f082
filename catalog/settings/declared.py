"""The settings of all processes, in the order in which help texts and documents show them."""

from typing import Any

from loradrop.catalog.redis_keys import DEFAULT_POOL
from loradrop.catalog.settings.kinds import (
    FILE_NAME,
    PATH,
    POOL,
    PORT,
    PRELOAD,
    SECONDS,
    SWITCH,
    WHOLE,
    choice,
    number,
    several,
    text,
)
from loradrop.catalog.settings.setting import Process, Setting

_SERVE, _WATCH, _API, _CLIENT = Process.SERVE, Process.WATCH, Process.API, Process.CLIENT

LORA_DIR_PREFIX = Setting(
    name="lora-dir-prefix",
    kind=PATH,
    of=(_SERVE, _WATCH),
    help="Where adapters are dropped: each directory in it is served under its name. It may be made later.",
)
LORA_DISCOVERY_INTERVAL = Setting(
    name="lora-discovery-interval",
    kind=SECONDS,
    of=(_SERVE, _WATCH),
    default="30",
    help="Seconds between rescans of the prefix, behind the notifications; 0: none.",
    why="Rescans only catch what notifications missed.",
)
REDIS_URL = Setting(
    name="redis-url",
    kind=text("URL"),
    of=(_SERVE, _WATCH, _API),
    default="redis://127.0.0.1:6379/0",
    otherwise="redis://127.0.0.1:6379/0; `serve`: everything at once, on an embedded Valkey",
    help="The Redis or Valkey of the fleet. `serve` without it starts a Valkey, a watcher and the API.",
)
POOL_NAME = Setting(
    name="pool",
    kind=POOL,
    of=(_SERVE, _WATCH, _API),
    default=DEFAULT_POOL,
    help="Which fleet on that Redis: processes of one pool share a catalog.",
)
WORKER_ID = Setting(
    name="worker-id",
    kind=text("ID"),
    of=(_SERVE,),
    otherwise="host name and port",
    help="The worker's name in reports.",
)
NOTIFIER = Setting(
    name="notifier",
    kind=choice("auto", "inotify", "watchdog", "none"),
    of=(_SERVE, _WATCH),
    default="auto",
    help="How changes are noticed between rescans; none: by rescans alone.",
    why="auto: inotify on Linux, watchdog elsewhere, none where other hosts may write to the filesystem.",
)
LORA_SETTLE = Setting(
    name="lora-settle",
    kind=SECONDS,
    of=(_SERVE, _WATCH),
    default="1",
    help="Seconds an adapter's files must be still before it is served.",
    why="Longer than a writer pauses between two writes, short enough not to be felt.",
)
LORA_CACHE_DIR = Setting(
    name="lora-cache-dir",
    kind=PATH,
    of=(_SERVE,),
    otherwise="~/.cache/loradrop",
    help="Private copies of adapters, on a local disk.",
)
LORA_CACHE_SIZE = Setting(
    name="lora-cache-size",
    kind=number("GIB", lowest=0.001),
    of=(_SERVE,),
    default="50",
    help="GiB the private copies may take; those in use never count as spare.",
)
LORA_COPY_BANDWIDTH = Setting(
    name="lora-copy-bandwidth",
    kind=number("MB/S"),
    of=(_SERVE,),
    default="0",
    help="MB/s that all copies from the prefix may take, in each API process; 0: no bound.",
)
LORA_STATE_DIR = Setting(
    name="lora-state-dir",
    kind=PATH,
    of=(_SERVE,),
    otherwise="~/.local/state/loradrop",
    help="The embedded Valkey's files.",
)
LORA_PRELOAD = Setting(
    name="lora-preload",
    kind=PRELOAD,
    of=(_SERVE,),
    default="none",
    help="Adapters to load ahead of their first request, when the engine is idle. Of several API processes, "
    "each knows its own requests only.",
)
API_HOST = Setting(
    name="api-host",
    kind=text("ADDRESS"),
    of=(_SERVE, _API),
    flags={_API: "--host"},
    default="127.0.0.1",
    help="Where the API listens.",
    why="Loopback: nothing is public unless it is asked for.",
)
API_PORT = Setting(
    name="api-port",
    kind=PORT,
    of=(_SERVE, _API),
    flags={_API: "--port"},
    default="8001",
    help="The API's port; 0: any free one.",
    why="One above vLLM's.",
)
ALLOW_PICKLE = Setting(
    name="allow-pickle",
    kind=SWITCH,
    of=(_SERVE, _WATCH),
    default="on",
    help="Admit adapter_model.bin after its opcodes were checked against an allow-list.",
)
ALLOW_SYMLINKS_TO = Setting(
    name="allow-symlinks-to",
    kind=several(PATH, ":"),
    of=(_SERVE, _WATCH),
    otherwise="none",
    help="A directory outside the prefix that links may lead into; may be given again.",
    is_advanced=True,
)
PREFIX_MARKER = Setting(
    name="prefix-marker",
    kind=FILE_NAME,
    of=(_WATCH,),
    otherwise="none",
    help="A file the prefix must hold: where it is missing, the prefix counts as unmounted.",
    is_advanced=True,
)
REMOVAL_GRACE = Setting(
    name="removal-grace",
    kind=SECONDS,
    of=(_WATCH,),
    default="1",
    help="Seconds an adapter must be absent before it is removed.",
    why="Longer than a rename swap leaves a gap, shorter than an operator waits for `rm -r` to take effect.",
    is_advanced=True,
)
MASS_REMOVAL_SHARE = Setting(
    name="mass-removal-share",
    kind=number("SHARE", highest=1),
    of=(_WATCH,),
    default="0.5",
    help="A loss of more than this share of the served adapters at once is held back ...",
    is_advanced=True,
)
MASS_REMOVAL_COUNT = Setting(
    name="mass-removal-count",
    kind=WHOLE,
    of=(_WATCH,),
    default="3",
    help="... where it is also more than this many.",
    is_advanced=True,
)
MASS_REMOVAL_GRACE = Setting(
    name="mass-removal-grace",
    kind=SECONDS,
    of=(_WATCH,),
    default="30",
    help="Seconds a mass removal is held back.",
    why="Long enough for an operator or a mount to come back.",
    is_advanced=True,
)
VERIFY_INTERVAL = Setting(
    name="verify-interval",
    kind=SECONDS,
    of=(_WATCH,),
    default="0",
    help="Seconds between two readings of every byte, for disks that change data without changing times; "
    "0: never.",
    is_advanced=True,
)
METRICS_HOST = Setting(
    name="metrics-host",
    kind=text("ADDRESS"),
    of=(_WATCH,),
    default="127.0.0.1",
    help="Where the watcher's Prometheus metrics are served, with --metrics-port.",
)
METRICS_PORT = Setting(
    name="metrics-port",
    kind=PORT,
    of=(_WATCH,),
    otherwise="off",
    help="Serve the watcher's Prometheus metrics on this port; 0: any free one.",
)
API_KEY = Setting(
    name="api-key",
    kind=several(text("KEYS"), ","),
    of=(_SERVE, _API, _CLIENT),
    otherwise="none",
    help="Keys, commas between, that guard the API's /v1 and all that vLLM's port infers or changes: KEY, "
    "KEY SCOPE or KEY SCOPE LABEL, where SCOPE is read or admin. The client commands send the first.",
    is_secret=True,
)
API_KEY_FILE = Setting(
    name="api-key-file",
    kind=PATH,
    of=(_SERVE, _API),
    otherwise="none",
    help="More of them, one a line; read again when it changes.",
)
API_ALLOWED_HOST = Setting(
    name="api-allowed-host",
    kind=several(text("NAME"), ","),
    of=(_SERVE, _API),
    flags={_API: "--allowed-host"},
    otherwise="none",
    help="A host name under which an API without keys may be asked, beside its addresses, localhost and the "
    "name of its host; may be given again.",
    why="A web page can give its own name this host's address, and ask in a visitor's place.",
    is_advanced=True,
)
LOG_LEVEL = Setting(
    name="log-level",
    kind=choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", shown=("DEBUG", "INFO", "WARNING", "ERROR")),
    of=(_WATCH, _API),
    default="INFO",
    help="How much is logged. `serve` logs as vLLM does.",
    is_advanced=True,
)
API_URL = Setting(
    name="api-url",
    kind=text("URL"),
    of=(_CLIENT,),
    default="http://127.0.0.1:8001",
    help="Where the API listens.",
)

ALL: tuple[Setting[Any], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Setting)
)


def settings_of(process: Process) -> tuple[Setting[Any], ...]:
    """Return what can be set for `process`."""
    return tuple(setting for setting in ALL if process in setting.of)
