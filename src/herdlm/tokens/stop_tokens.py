"""The ids that end an answer, by the settings of a model folder."""

from __future__ import annotations

from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.base.json_files import read_object


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
        stated = read_object(path, "Restore it from its source", encoding="utf-8-sig").get("eos_token_id")
        listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
        for id in listed:
            if type(id) is not int or not 0 <= id < 2**31:
                raise InputError(f"{path}: eos_token_id {id!r} is not the number of a token", "Correct it")
        if listed:
            return listed
    return []
