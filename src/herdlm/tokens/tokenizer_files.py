"""What the files of a tokenizer folder say beside ``tokenizer.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object

RESTORE = "Restore the file from its source"
TOKENIZER_BYTES = 256 * 2**20
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of a folder's tokenizer_config.json, with what an older special_tokens_map.json adds.

    Raises:
        DamagedError: one of them is not a JSON object.
    """
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        read = read_object(path, RESTORE, encoding="utf-8-sig")
        settings |= {key: value for key, value in read.items() if value is not None}
    return settings


def named_tokens(settings: dict[str, Any]) -> dict[str, str] | None:
    """The tokens that the settings name, by role; None if they name none."""
    names = {}
    for role in ROLES:
        token = settings.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            names[role] = token
    return names or None


def also_special(settings: dict[str, Any]) -> list[str]:
    """Special tokens beyond those with a role, by the keys of transformers 4 and 5."""
    listed = [*_values(settings.get("additional_special_tokens")), *_values(settings.get("extra_special_tokens"))]
    contents = (token.get("content") if isinstance(token, dict) else token for token in listed)
    return [token for token in contents if isinstance(token, str) and token]


def _values(listed: Any) -> list[Any]:
    return list(listed.values()) if isinstance(listed, dict) else listed if isinstance(listed, list) else []


def check_definition(definition: dict[str, Any], path: Path) -> None:
    """Refuse a ``tokenizer.json`` that cuts texts, or encodes them by chance.

    Raises:
        InputError: it does.
        DamagedError: its tokens are not a list of objects with a content and an id.
    """
    if definition.get("truncation") is not None:
        raise InputError(f"{path}: truncation cuts every text short", "Set truncation to null, if that was not meant")
    model = definition.get("model")
    if isinstance(model, dict) and model.get("dropout") not in (None, 0, 0.0):
        raise InputError(
            f"{path}: model.dropout = {model['dropout']!r} encodes a text by chance", "Set model.dropout to null"
        )
    added = definition.get("added_tokens") or []
    well_formed = isinstance(added, list) and all(
        isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int
        for token in added
    )
    if not well_formed:
        raise DamagedError(f"{path}: added_tokens is not a list of tokens with content and id", RESTORE)


def check_ids(backend: Backend, added: list[dict[str, Any]], path: Path) -> None:
    """Refuse a file that the tokenizers library reads with other ids than it states, as it does beside unused ids."""
    for token in added:
        if (id := backend.token_to_id(token["content"])) != token["id"]:
            raise InputError(
                f"{path} gives the added token {token['content']!r} the id {token['id']}, but it is loaded as {id}, "
                "the first after the model's vocabulary",
                "Put the token in model.vocab under its id",
            )


def add_missing(backend: Backend, settings: dict[str, Any]) -> None:
    """Add the tokens that only tokenizer_config.json lists, if they come next in the vocabulary, as it says."""
    listed = settings.get("added_tokens_decoder")
    entries = {int(id): entry for id, entry in listed.items() if id.isdecimal()} if isinstance(listed, dict) else {}
    for id, entry in sorted(entries.items(), key=lambda item: item[0]):
        content = entry.get("content") if isinstance(entry, dict) else None
        if isinstance(content, str) and backend.token_to_id(content) is None and id == backend.get_vocab_size():
            flags = {key: bool(entry.get(key, False)) for key in ("lstrip", "rstrip", "normalized", "single_word")}
            backend.add_tokens([AddedToken(content, special=bool(entry.get("special", False)), **flags)])
