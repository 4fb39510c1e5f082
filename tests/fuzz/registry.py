"""Every target there is, by name."""

import importlib
import importlib.util

from tests.fuzz import decoding
from tests.fuzz.planted import PLANTED
from tests.fuzz.target import Target

_MORE = "tests.fuzz.targets"
"""A module of functions `check_NAME(data)`; each begins with the seeds of the target `_ALIKE` names."""
_ALIKE = {"safetensors": "safetensors_file", "zip": "archive", "pickle": "program", "config": "config"}
_PREFIX = "check_"


def all_targets() -> dict[str, Target]:
    """Return the targets to be fuzzed."""
    from tests.fuzz import adapters

    own = {target.name: target for target in (*decoding.TARGETS, *adapters.TARGETS)}
    return own | _more(own)


def target_called(name: str) -> Target:
    """Return the target of that name, one with a planted fault included."""
    for target in (*PLANTED.values(), *decoding.TARGETS):
        if target.name == name:
            return target  # torch, which the others are held against, takes seconds to import
    return all_targets()[name]


def _more(own: dict[str, Target]) -> dict[str, Target]:
    if importlib.util.find_spec(_MORE) is None:
        return {}
    module = importlib.import_module(_MORE)
    found: dict[str, Target] = {}
    for attribute in vars(module):
        alike = _ALIKE.get(attribute.removeprefix(_PREFIX))
        if attribute.startswith(_PREFIX) and alike is not None:
            name = f"{attribute.removeprefix(_PREFIX)}_reader"
            found[name] = Target(name, getattr(module, attribute), own[alike].seeds, own[alike].tokens)
    return found
