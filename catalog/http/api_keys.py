"""API keys: which requests both ports admit, and what for.

A key is written `KEY`, `KEY SCOPE` or `KEY SCOPE LABEL`: in LORADROP_API_KEY with commas between, in a file
one a line, where empty lines and lines that begin with `#` are skipped. SCOPE is `read` or `admin`, and
`admin` where none is named. LABEL is how a refresh names who asked for it.

A file is read again as soon as it changes. One that cannot be used any more leaves the keys it held in
force, and the log says so: a slip of an editor locks no client out and lets none in.

Not here: HTTP (`auth`).
"""

import hashlib
import hmac
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from loradrop.catalog.errors import AdminKeyNeeded, KeyNeeded, KeysInvalid
from loradrop.catalog.settings.declared import API_KEY

_log = logging.getLogger(__name__)

_MAX_FILE_BYTES = 1 << 20
_MAX_WORDS = 2
"""After the key: its scope and its label."""
_SHAPE = "A key is written KEY, KEY SCOPE or KEY SCOPE LABEL, and SCOPE is read or admin."


class Scope(StrEnum):
    """What a key is good for."""

    READ = "read"
    """Everything but what changes what is served, or operates the server."""
    ADMIN = "admin"
    """Everything."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. Its secret is in no representation of it."""

    secret: str = field(repr=False)
    scope: Scope
    label: str


class KeyFile:
    """The keys in a file. Invariant: they are those of the last time it could be used."""

    def __init__(self, path: Path) -> None:
        """Read `path`; raises KeysInvalid where it cannot be used now."""
        self._path = path
        self._seen = self._signature()
        self._keys = self._read()

    def current(self) -> tuple[ApiKey, ...]:
        """Return the keys, read again where the file has changed."""
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature
            try:
                self._keys = self._read()
                _log.info("API keys were read again path=%s count=%d", self._path, len(self._keys))
            except KeysInvalid as error:
                _log.error("API keys stay as they were path=%s reason=%s", self._path, error.message)
        return self._keys

    def _signature(self) -> tuple[int, ...] | None:
        try:
            held = self._path.stat()
        except OSError:
            return None  # reading it says why
        return held.st_dev, held.st_ino, held.st_size, held.st_mtime_ns, held.st_ctime_ns

    def _read(self) -> tuple[ApiKey, ...]:
        try:
            with self._path.open("rb") as file:
                lines = file.read(_MAX_FILE_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise KeysInvalid(f"The key file {self._path} cannot be read: {why}.") from error
        keys = tuple(
            _key(line, where=f"Line {number} of {self._path}", label=f"line-{number}")
            for number, line in enumerate(lines, 1)
            if line.strip() and not line.lstrip().startswith("#")
        )
        if not keys:
            raise KeysInvalid(f"The key file {self._path} holds no key. {_SHAPE} One a line.")
        return keys


class KeyRing:
    """Every key in force. Invariant: without any, everything is open, and `is_open` says so."""

    def __init__(self, keys: Iterable[ApiKey] = (), *, file: KeyFile | None = None) -> None:
        """Admit requests with one of `keys`, or of those in `file`."""
        self._keys = tuple(keys)
        self._file = file

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The keys in force now."""
        return self._keys if self._file is None else (*self._keys, *self._file.current())

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return not self._keys and self._file is None

    def admit(self, authorization: bytes, *, needed: Scope) -> ApiKey:
        """Return the key that an `Authorization` header holds; raises KeyNeeded and AdminKeyNeeded."""
        scheme, _, secret = authorization.partition(b" ")
        digest = _digest(secret.strip())
        # Every key is compared, each in constant time: how long it takes says nothing about any of them.
        found = [key for key in self.keys if hmac.compare_digest(digest, _digest(key.secret.encode()))]
        if scheme.lower() != b"bearer" or not found:
            raise KeyNeeded
        if needed is Scope.ADMIN and not any(key.scope is Scope.ADMIN for key in found):
            raise AdminKeyNeeded
        return next((key for key in found if key.scope is Scope.ADMIN), found[0])


def keys_from(entries: Sequence[str]) -> tuple[ApiKey, ...]:
    """Return the keys of LORADROP_API_KEY, split at its commas; raises KeysInvalid."""
    return tuple(
        _key(entry, where=f"Entry {number} of {API_KEY.variable}", label=f"key-{number}")
        for number, entry in enumerate(entries, 1)
    )


def _key(entry: str, *, where: str, label: str) -> ApiKey:
    secret, *words = entry.split()
    if not secret.isprintable():  # an invisible character, or bytes that are not UTF-8: no client sends it
        raise KeysInvalid(f"{where} holds a character that does not print. {_SHAPE}")
    if len(words) > _MAX_WORDS or (words and words[0] not in set(Scope)):
        raise KeysInvalid(f"{where} is not a key. {_SHAPE}")  # what it holds is a secret
    scope = Scope(words[0]) if words else Scope.ADMIN
    return ApiKey(secret, scope, words[1] if len(words) == _MAX_WORDS else label)


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
