"""The two files of an adapter, opened together: its configuration, and the weights vLLM would read."""

import os
from dataclasses import dataclass
from typing import Self

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.catalog.lora.config import MAX_CONFIG_BYTES
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.catalog.lora.open_files import Roots, is_gone, open_file
from loradrop.catalog.lora.pickle_archive import read_archive
from loradrop.catalog.lora.safetensors_header import read_header
from loradrop.catalog.lora.tensors import Tensor

_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """The configuration's bytes, the weights' open descriptor, and what `fstat` said of both.

    Leaving it as a context closes the weights.
    """

    config: bytes
    config_stat: os.stat_result
    weights_format: WeightsFormat
    weights: int
    weights_stat: os.stat_result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.weights)

    def declared_tensors(self) -> list[Tensor]:
        """Return the tensors the weights declare, which are whole.

        Raises Incomplete where bytes are missing, Rejected, and OSError.
        """
        _check_pointer(self.weights_format.filename, os.pread(self.weights, len(_POINTER), 0))
        read = read_header if self.weights_format is WeightsFormat.SAFETENSORS else read_archive
        return read(self.weights, self.weights_stat.st_size)


def opened_adapter(directory: int, roots: Roots, *, allow_pickle: bool = True) -> AdapterFiles:
    """Open the files of the adapter in the open `directory`.

    Raises Incomplete where one is missing, Changed where one is being written, Rejected, and OSError.
    """
    config, config_stat = _read_config(directory, roots)
    weights_format = _format(directory)
    if weights_format is WeightsFormat.PICKLE and not allow_pickle:
        raise Rejected(
            "pickle_not_allowed",
            "Only adapter_model.bin is there, and --no-allow-pickle is set. Save it as safetensors.",
        )
    weights, weights_stat = open_file(directory, weights_format.filename, roots)
    return AdapterFiles(config, config_stat, weights_format, weights, weights_stat)


def _read_config(directory: int, roots: Roots) -> tuple[bytes, os.stat_result]:
    try:
        descriptor, found = open_file(directory, CONFIG_FILENAME, roots)
    except OSError as error:
        if is_gone(error):
            raise Incomplete(
                "config_missing",
                "adapter_config.json is missing. Wait for the copy, or copy it into the directory.",
            ) from error
        raise
    try:
        if found.st_size > MAX_CONFIG_BYTES:
            raise Rejected(
                "config_too_large",
                f"adapter_config.json has {found.st_size} bytes; PEFT's have less than"
                f" {MAX_CONFIG_BYTES}. Save the adapter again with PEFT.",
            )
        text = os.pread(descriptor, MAX_CONFIG_BYTES + 1, 0)
    finally:
        os.close(descriptor)
    if len(text) != found.st_size:
        raise Changed
    _check_pointer(CONFIG_FILENAME, text)
    return text, found


def _check_pointer(name: str, begin: bytes) -> None:
    if begin.startswith(_POINTER):
        raise Rejected(
            "git_lfs_pointer",
            f"{name} is a pointer of Git LFS, not the file itself. Run git lfs pull where it was cloned, and"
            " copy it again.",
        )


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
