"""The base model as its own checkpoint describes it: the shapes of its weights, from the headers alone.

Only safetensors headers and config.json are read, so a 400 GB model costs milliseconds. A checkpoint
that is not on this machine, is quantized, or has another format is not known, and that is said.
"""

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from loradrop.worker.admission.base_fit import BaseModel

_log = logging.getLogger(__name__)

_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings")


def read_base_model(directory: Path | None, *, renamed: bool) -> BaseModel | None:
    """Return what the checkpoint in `directory` says of its weights, or None where it says too little.

    `renamed`: vLLM maps this model's names to others, as it does for multimodal ones.
    """
    if directory is None:
        _log.warning("base model not found on this machine, adapters are admitted without comparing shapes")
        return None
    try:
        config = json.loads((directory / "config.json").read_bytes())
        shapes = _shapes(directory)
    except (OSError, ValueError, SafetensorError) as error:
        _log.warning(
            "base model not readable, adapters are admitted without comparing shapes error=%s", error
        )
        return None
    if not shapes or _is_quantized(config):
        _log.warning("base model's shapes are not in its checkpoint, adapters are admitted without comparing")
        return None
    return BaseModel(shapes, _layers(config), renamed)


def _shapes(directory: Path) -> dict[str, tuple[int, int]]:
    shapes: dict[str, tuple[int, int]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                module, _, kind = name.rpartition(".")
                shape = file.get_slice(name).get_shape()
                if kind == "weight" and len(shape) == 2:  # noqa: PLR2004 - a matrix
                    shapes[module] = (shape[0], shape[1])
    embeddings = next((shape for name, shape in shapes.items() if name.endswith(_EMBEDDINGS)), None)
    if embeddings is not None:
        shapes.setdefault("lm_head", embeddings)  # not saved where it shares the embeddings' weights
    return shapes


def _is_quantized(config: dict[str, Any]) -> bool:
    text = config.get("text_config")
    return bool(
        config.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config"))
    )


def _layers(config: dict[str, Any]) -> int | None:
    for part in (config, config.get("text_config")):
        for key in ("num_hidden_layers", "n_layer", "num_layers"):
            if isinstance(part, dict) and isinstance(part.get(key), int):
                return int(part[key])
    return None
