"""The ids that end an answer, by the settings of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError, InputError


def stated_stop_tokens(folder: Path) -> list[int]:
    """The ids that end an answer by the folder's generation_config.json or, without one, its config.json.

    Raises:
        InputError: one of them is not a token's number.
        DamagedError: the file cannot be read.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if not path.is_file():
            continue
        stated = read_object(path).get("eos_token_id")
        listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
        for id in listed:
            if not isinstance(id, int) or id < 0:
                raise InputError(f"{path}: eos_token_id {id!r} is not the number of a token", "Correct it")
        if listed:
            return listed
    return []


def read_object(path: Path) -> dict[str, Any]:
    """A file of JSON that holds one object.

    Raises:
        DamagedError: it does not.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DamagedError(f"{path} is not valid JSON: {error}", "Restore it from its source") from error
    if not isinstance(settings, dict):
        raise DamagedError(f"{path} is not a JSON object", "Restore it from its source")
    return settings
