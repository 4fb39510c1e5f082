"""What a directory without a whole adapter is instead, and what to do: what is dropped by mistake, by name.

Only names are looked at, a bounded number of them, and of subdirectories whether they hold a configuration.
"""

import os
import re
from collections.abc import Collection
from itertools import islice

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.printable import printable

_MAX_ENTRIES = 500
_MAX_SUBDIRECTORIES = 20
_QUOTED = 3
_QUOTED_CHARACTERS = 40

_WEIGHTS = tuple(weights.filename for weights in WeightsFormat)
_SHARD = re.compile(r"adapter_model[-.].*(\d+-of-\d+.*|\.index\.json)")
_MODEL_WEIGHTS = re.compile(
    r"(model|pytorch_model|consolidated)([-.].*)?\.(safetensors|bin|pth?)(\.index\.json)?"
)
_CHECKPOINT = re.compile(r"checkpoint[-_]?\d+")
_OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


def explain(directory: int, missing: Incomplete) -> Incomplete | Rejected:
    """Return why the open `directory` lacks a file, as precisely as its names tell; `missing` where not."""
    with os.scandir(directory) as entries:
        found = list(islice(entries, _MAX_ENTRIES))
    names = {entry.name for entry in found}
    if not names:
        return Incomplete("directory_empty", "The directory is empty. Wait for the copy, or copy an adapter.")
    if any(_SHARD.fullmatch(name) for name in names):
        return Rejected(
            "weights_sharded",
            "The weights are in several files, and vLLM reads adapter_model.safetensors alone. Save"
            " the adapter again in one file: save_pretrained(..., max_shard_size='100GB').",
        )
    if CONFIG_FILENAME not in names and names.isdisjoint(_WEIGHTS):
        directories = sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
        wrong = _of_names(names, directories) or _of_subdirectories(directory, directories)
        if wrong is not None:
            return wrong
    others = sorted(name for name in names if name.endswith(_OTHER_WEIGHTS) and name not in _WEIGHTS)
    if missing.reason.code == "weights_missing" and others:
        return Incomplete(
            "weights_missing",
            f"Neither adapter_model.safetensors nor adapter_model.bin is there; {_some(others)} is, which"
            " vLLM does not read. Wait for the copy, or save the adapter again with PEFT.",
        )
    return missing


def _of_names(names: Collection[str], directories: Collection[str]) -> Rejected | None:
    if "config.json" in names and any(_MODEL_WEIGHTS.fullmatch(name) for name in names):
        return Rejected(
            "whole_model",
            "This is a whole model (config.json and its weights), not an adapter. Serve it as a base model,"
            " or copy the adapter it was merged from.",
        )
    if "snapshots" in directories and "blobs" in names:
        return Rejected(
            "hub_cache",
            "This is an entry of the Hugging Face cache. Copy or link the directory below snapshots/ that"
            " holds adapter_config.json.",
        )
    checkpoints = [name for name in directories if _CHECKPOINT.fullmatch(name)]
    if checkpoints:
        return Rejected(
            "checkpoints_only",
            f"This holds a trainer's checkpoints ({_some(checkpoints)}) and no adapter itself. Copy the"
            " checkpoint that is to be served under a name of its own.",
        )
    return None


def _of_subdirectories(directory: int, directories: Collection[str]) -> Rejected | None:
    adapters = [name for name in islice(directories, _MAX_SUBDIRECTORIES) if _holds_adapter(directory, name)]
    if not adapters:
        return None
    return Rejected(
        "directory_of_adapters",
        f"This is a directory of adapters ({_some(adapters)}), and adapters lie directly under the prefix."
        " Move them up, under names of their own.",
    )


def _holds_adapter(directory: int, name: str) -> bool:
    try:
        os.stat(f"{name}/{CONFIG_FILENAME}", dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _some(names: Collection[str]) -> str:
    quoted = ", ".join(printable(name)[:_QUOTED_CHARACTERS] for name in islice(names, _QUOTED))
    return quoted if len(names) <= _QUOTED else f"{quoted} and {len(names) - _QUOTED} more"
