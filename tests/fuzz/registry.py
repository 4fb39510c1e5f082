"""Every target there is, by name."""

from tests.fuzz.checks import decoding
from tests.fuzz.checks.planted import PLANTED
from tests.fuzz.target import Target


def all_targets() -> dict[str, Target]:
    """Return the targets to be fuzzed."""
    from tests.fuzz import targets
    from tests.fuzz.checks import adapters

    own = {target.name: target for target in (*decoding.TARGETS, *adapters.TARGETS)}
    readers = {
        "config_reader": (targets.check_config, own["config"]),
        "safetensors_reader": (targets.check_safetensors, own["safetensors_file"]),
        "zip_reader": (targets.check_zip, own["archive"]),
        "pickle_reader": (targets.check_pickle, own["program"]),
    }
    return own | {
        name: Target(name, check, alike.seeds, alike.tokens) for name, (check, alike) in readers.items()
    }


def target_called(name: str) -> Target:
    """Return the target of that name, one with a planted fault included."""
    for target in (*PLANTED.values(), *decoding.TARGETS):
        if target.name == name:
            return target  # torch, which the others are held against, takes seconds to import
    return all_targets()[name]
