"""API keys in a file, which a running server reads again when it changes.

A key is 256 random bits, and the file holds only its SHA-256. A slow hash such as scrypt protects passwords, which can
be guessed. 256 random bits cannot, and a slow hash would add tenths of a second to every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herdlm.base.errors import DamagedError, InputError

MAX_BYTES = 64 * 2**20  # of a file with 200,000 keys
PREFIX = "herdlm-"  # so that scanners for leaked secrets can find one


class Key(BaseModel):
    """A key's entry: its owner's name and its limits. None means no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: int
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    concurrent: int | None = Field(None, ge=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[Key] = []


class KeyFile:
    """A JSON file of keys that only its owner can read and write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[Key] = []

    def entries(self) -> list[Key]:
        """All keys that the file holds now.

        Raises:
            InputError: the file does not exist.
            DamagedError: the file cannot be read.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if status.st_size > MAX_BYTES:
                raise DamagedError(f"{self.path} has more than {MAX_BYTES:,} bytes", "Restore it, or create a new one")
            if stamp != self._stamp:
                self._keys = _File.model_validate_json(self.path.read_bytes()).keys
                self._stamp = stamp
        except FileNotFoundError as error:
            raise InputError(
                f"the key file {self.path} does not exist", f"Create it: herdlm keys add NAME --file {self.path}"
            ) from error
        except OSError as error:
            raise DamagedError(f"{self.path} cannot be read: {error.strerror}", "Give a readable file") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the file"
            what = f"{self.path} is not a key file: {where}: {problem['msg']}"
            raise DamagedError(what, "Restore it, or create a new one") from error
        return self._keys

    def find(self, secret: str) -> Key | None:
        """The entry of a key, or None. Takes the same time whether and wherever the key is found."""
        digest = key_hash(secret)
        match = None
        for key in self.entries():
            if hmac.compare_digest(key.sha256, digest):
                match = key
        return match

    def add(
        self,
        name: str,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrent: int | None = None,
    ) -> str:
        """Create a key and return it. The file cannot give it back.

        Raises:
            InputError: the name is taken or invalid, or a limit is not positive.
        """
        keys = self.entries() if self.path.exists() else []
        if any(key.name == name for key in keys):
            raise InputError(f"{self.path} has a key named {name}", "Revoke it first, or choose another name")
        secret = PREFIX + secrets.token_urlsafe(32)
        try:
            key = Key(
                name=name,
                sha256=key_hash(secret),
                created=int(time.time()),
                concurrent=concurrent,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
            )
        except ValidationError as error:
            problem = error.errors()[0]
            raise InputError(
                f"{problem['loc'][0]} = {problem['input']!r}: {problem['msg']}", "Change that option"
            ) from error
        self._write([*keys, key])
        return secret

    def revoke(self, name: str) -> None:
        """Remove a key. A running server refuses it from the next request on.

        Raises:
            InputError: no key has that name.
        """
        keys = self.entries()
        if all(key.name != name for key in keys):
            raise InputError(
                f"{self.path} has no key named {name}", f"It has {', '.join(k.name for k in keys) or 'none'}"
            )
        self._write([key for key in keys if key.name != name])

    def _write(self, keys: list[Key]) -> None:
        text = json.dumps({"keys": [key.model_dump() for key in keys]}, indent=2) + "\n"
        # Renamed into place, so that a server reading meanwhile sees the whole old or the whole new file.
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def key_hash(secret: str) -> str:
    """The hash that the file holds of a key."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
