"""A tokenizer whose special tokens have names that nobody can guess, so that no text becomes one of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend


@dataclass(frozen=True, slots=True)
class Renamed:
    """A backend with renamed special tokens and the same ids.

    Attributes:
        names: the new name of each special token.
        others: the added tokens that are not special; text becomes them.
    """

    backend: Backend
    names: dict[str, str]
    others: list[str]


def rename_special(backend: Backend, special: Mapping[str, int]) -> Renamed:
    """Copy ``backend`` with secret names for the tokens in ``special``.

    They are renamed in the model's vocabulary, too. A model of SentencePiece holds some there, and would make
    ``<s>`` of the three characters.
    """
    secret = secrets.token_hex(8)
    names = {content: f"\ufdd4{secret}{id}\ufdd5" for content, id in special.items()}
    state = json.loads(backend.to_str())
    state |= {"post_processor": None, "truncation": None, "padding": None}
    others = []
    for token in state["added_tokens"]:
        if token["content"] in names:
            token["content"] = names[token["content"]]
        else:
            others.append(token["content"])
    _rename_vocabulary(state["model"], names)
    renamed = Backend.from_str(json.dumps(state))
    listed = {token["content"] for token in state["added_tokens"]}
    # Some are named by the folder's settings alone, and not among the tokenizer's added tokens.
    renamed.add_special_tokens([name for name in names.values() if name not in listed])
    return Renamed(renamed, names, others)


def _rename_vocabulary(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename tokens of a BPE model, with its merges, or of a Unigram model."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
        return
    model["vocab"] = {names.get(token, token): id for token, id in vocabulary.items()}
    model["merges"] = [
        (first, second)
        for first, second in model.get("merges", [])
        if not names.keys() & {first, second, first + second}
    ]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
