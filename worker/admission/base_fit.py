"""Is the adapter for this base model? Its modules and shapes against those of the base model's checkpoint.

vLLM half-loads or silently ignores much of what is refused here: tensors of a smaller model, layers that do
not exist, names with another prefix. Pure. Not here: reading the checkpoint (`base_model`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loradrop.catalog.adapter import Reason
from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.patterns import has_suffix
from loradrop.catalog.lora.tensors import Pair, is_expert

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_NAMED_IN_MESSAGES = 3


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The base model's linear and embedding weights: module name -> (rows, columns).

    `layers` is how many transformer layers are run (a checkpoint may hold more). `renamed` says that
    vLLM renames modules of this model, so that a name that is not found may still be right.
    """

    shapes: Mapping[str, tuple[int, int]]
    layers: int | None = None
    renamed: bool = False


def find_misfit(config: LoraConfig, pairs: Mapping[str, Pair], base: BaseModel) -> Reason | None:
    """Return why the adapter is not for `base`, or None."""
    known = {module: name for module in pairs if (name := _known_as(module, base)) is not None}
    unknown = [module for module in pairs if module not in known and not is_expert(module)]
    if unknown and not base.renamed:
        return Reason(
            "module_not_in_base_model",
            f"The base model has no {_some(unknown)}. The adapter is for another model, or its names have "
            "another prefix.",
        )
    for module, name in known.items():
        pair, expected = pairs[module], base.shapes[name]
        if is_expert(module):
            continue
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != expected and found != expected[::-1]:  # embeddings and Conv1D are stored transposed
            return Reason(
                "shape_disagrees",
                f"{module} is for weights of {found[0]} x {found[1]}, the base model's are {expected[0]} x "
                f"{expected[1]}. The adapter is for another model.",
            )
    if missing := list(_missing(config, frozenset(known.values()), base)):
        return Reason(
            "layers_missing",
            f"The adapter has no weights for {_some(missing)}, though its target_modules name them. It is "
            "for a smaller model, or was not saved whole. Adapters for chosen layers say so in "
            "layers_to_transform.",
        )
    return None


def _known_as(module: str, base: BaseModel) -> str | None:
    """Return the name under which the checkpoint has `module`, or None.

    A checkpoint saved from the bare model lacks the prefix (`transformer.`, `model.`) its modules have
    in the whole model, where adapters are trained; then all of its names lack it.
    """
    if module in base.shapes:
        return module
    prefix, _, rest = module.partition(".")
    if rest in base.shapes and not any(name.startswith(f"{prefix}.") for name in base.shapes):
        return rest
    return None


def _missing(config: LoraConfig, present: frozenset[str], base: BaseModel) -> Iterator[str]:
    if config.layers_chosen or not config.target_modules or base.renamed:
        return
    for name in base.shapes:
        layer = None if is_expert(name) else _LAYER.search(name)
        if layer is None or (base.layers is not None and int(layer[1]) >= base.layers):
            continue
        wanted = has_suffix(name, config.target_modules) and not has_suffix(name, config.exclude_modules)
        if wanted and name not in present:
            yield name


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_IN_MESSAGES])
    more = len(names) - _NAMED_IN_MESSAGES
    return f"{shown} and {more} more" if more > 0 else shown
