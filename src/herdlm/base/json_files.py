"""Reads anybody's JSON and TOML within bounds of size, depth and numbers, so that no file stalls a command."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from herdlm.base.artifact import check_listed
from herdlm.base.errors import DamagedError, InputError

SETTINGS_BYTES = 32 * 2**20
"""The most bytes of a file of settings: the largest published ones list 100,000 tokens or tensors in a tenth of it."""
MAX_DEPTH = 100
_DIGITS = 40  # of a whole number: transformers writes 10**30 where there is no limit
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_BETWEEN_KEYS = re.compile(r"[,=\[\]{}\n]")


def read_object(path: Path, remedy: str, *, most: int = SETTINGS_BYTES, encoding: str = "utf-8") -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: there is no such file.
        DamagedError: it is not JSON, not an object, not what the folder's manifest says, or beyond the bounds.
    """
    return as_object(read_bounded(path, remedy, most=most), path, remedy, encoding=encoding)


def as_object(data: bytes, path: Path, remedy: str, *, encoding: str = "utf-8") -> dict[str, Any]:
    """The object that the bytes of a JSON file hold; see :func:`read_object`."""
    try:
        value = parse_json(data.decode(encoding))
    except ValueError as error:
        raise DamagedError(f"{path} is not valid JSON: {error}", remedy) from error
    if not isinstance(value, dict):
        raise DamagedError(f"{path} does not hold a JSON object", remedy)
    return value


def read_bounded(path: Path, remedy: str, *, most: int = SETTINGS_BYTES) -> bytes:
    """The bytes of a file of at most ``most`` bytes, compared with the manifest of its folder, if that lists it.

    Raises:
        InputError: there is no such file, or it is no regular file.
        DamagedError: it is longer, cannot be read, or differs from its manifest.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file", "Check the path")
        size = path.stat().st_size
        if size > most:
            raise DamagedError(f"{path} has {size:,} bytes, more than any such file ({most:,})", remedy)
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist", "Check the path") from error
    except (OSError, ValueError) as error:  # a path may hold a zero byte
        raise DamagedError(f"{str(path)!r} cannot be read: {error}", remedy) from error
    check_listed(path, data)
    return data


def parse_json(text: str) -> Any:
    """The value of a JSON text: no infinite numbers or ones of 40 digits, no half characters, ``MAX_DEPTH`` levels.

    Raises:
        ValueError: it is not such a text.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_value(value, surrogates=_ESCAPED.search(text) is not None)
    return value


def check_value(value: Any, *, surrogates: bool = True) -> None:
    """Refuse what no table or list of a file may be: nested too deeply, or with half a character.

    Raises:
        ValueError: it is.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                if surrogates and any(_SURROGATE.search(key) for key in part):
                    raise ValueError("a key holds half a character (a lone surrogate)")
                below += part.values()
            elif isinstance(part, list):
                below += part
            elif surrogates and isinstance(part, str) and _SURROGATE.search(part):
                raise ValueError("a text holds half a character (a lone surrogate)")
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text, within such bounds, and without numbers beyond 64 bits.

    Raises:
        ValueError: it is not such a text.
    """
    if any(part.count(".") > MAX_DEPTH for part in _BETWEEN_KEYS.split(text)):  # which take quadratic time
        raise ValueError(f"a key has more than {MAX_DEPTH} parts")
    if (digits := re.search(r"\d[\d_]{400}", text)) is not None:
        raise ValueError(f"a number has too many digits (in line {text.count(chr(10), 0, digits.start()) + 1})")
    try:
        tables = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_value(tables)
    _check_scalars(tables, "")
    return tables


def _check_scalars(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_scalars(part, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_scalars(part, f"{key}.{number}")
    elif isinstance(value, str) and "\0" in value:
        raise ValueError(f"key {key[:100]} holds a zero byte")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"key {key[:100]} is a number beyond 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"key {key[:100]} = {value} is no finite number")


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:30]} is beyond any number")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
