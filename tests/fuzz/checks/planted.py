"""Targets with a known fault each: a driver that does not find these finds nothing."""

import os
import signal

from tests.fuzz.target import Target

_TOKENS = (b"LORA", b"drop")


def _check_reached(data: bytes) -> bool:
    return data[:4] == b"LORA" and data[4:8] == b"drop"


def _foreign_error(data: bytes) -> None:
    if _check_reached(data):
        raise KeyError("an error that is none of ours")


def _endless(data: bytes) -> None:
    while _check_reached(data):
        pass


def _bomb(data: bytes) -> None:
    if _check_reached(data):
        bytearray(b"x") * (256 << 20)


def _death(data: bytes) -> None:
    if _check_reached(data):
        os.kill(os.getpid(), signal.SIGSEGV)


def _sound(_data: bytes) -> None:
    pass


PLANTED = {
    check.__name__.strip("_"): Target(check.__name__.strip("_"), check, lambda: [b"LORA"], _TOKENS)
    for check in (_foreign_error, _endless, _bomb, _death, _sound)
}
