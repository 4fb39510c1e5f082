"""The two files of an adapter, opened together: its configuration, and the weights vLLM would read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.catalog.lora.config import MAX_CONFIG_BYTES
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.catalog.lora.open_files import Roots, is_gone, opened_file
from loradrop.catalog.lora.pickle_archive import read_archive
from loradrop.catalog.lora.safetensors_header import read_header
from loradrop.catalog.lora.tensors import Tensor


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """The configuration's bytes, the weights' open descriptor, and what `fstat` said of both."""

    config: bytes
    config_stat: os.stat_result
    weights_format: WeightsFormat
    weights: int
    weights_stat: os.stat_result

    def declared_tensors(self) -> list[Tensor]:
        """Return the tensors the weights declare, which are whole.

        Raises Incomplete where bytes are missing, Rejected, and OSError.
        """
        read = read_header if self.weights_format is WeightsFormat.SAFETENSORS else read_archive
        return read(self.weights, self.weights_stat.st_size)


@contextmanager
def opened_adapter(directory: int, roots: Roots, *, allow_pickle: bool = True) -> Iterator[AdapterFiles]:
    """Open the files of the adapter in the open `directory` for the length of the block.

    Raises Incomplete where one is missing, Changed where one is being written, Rejected, and OSError.
    """
    config, config_stat = _read_config(directory, roots)
    weights_format = _format(directory)
    if weights_format is WeightsFormat.PICKLE and not allow_pickle:
        raise Rejected(
            "pickle_not_allowed",
            "Only adapter_model.bin is there, and --no-allow-pickle is set. Save it as safetensors.",
        )
    with opened_file(directory, weights_format.filename, roots) as (weights, weights_stat):
        yield AdapterFiles(config, config_stat, weights_format, weights, weights_stat)


def _read_config(directory: int, roots: Roots) -> tuple[bytes, os.stat_result]:
    try:
        with opened_file(directory, CONFIG_FILENAME, roots) as (descriptor, found):
            if found.st_size > MAX_CONFIG_BYTES:
                raise Rejected(
                    "config_too_large",
                    f"adapter_config.json has {found.st_size} bytes; PEFT's have less than"
                    f" {MAX_CONFIG_BYTES}. Save the adapter again with PEFT.",
                )
            text = os.pread(descriptor, MAX_CONFIG_BYTES + 1, 0)
            if len(text) != found.st_size:
                raise Changed
            return text, found
    except OSError as error:
        if is_gone(error):
            raise Incomplete(
                "config_missing",
                "adapter_config.json is missing. Wait for the copy, or copy it into the directory.",
            ) from error
        raise


def _format(directory: int) -> WeightsFormat:
    for weights_format in WeightsFormat:  # safetensors first: vLLM prefers it where both are there
        if _exists(directory, weights_format.filename):
            return weights_format
    raise Incomplete(
        "weights_missing",
        "Neither adapter_model.safetensors nor adapter_model.bin is there. Wait for the copy, or copy it"
        " again.",
    )


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except OSError as error:
        if is_gone(error):
            return False
        raise
    return True
