"""The tokenizer of a Hugging Face folder as the metadata of a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object
from herdlm.tokens.gguf_import import (
    BYTE,
    CONTROL,
    ENDS,
    NORMAL,
    ROLES,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    merges_from_scores,
)
from herdlm.tokens.gguf_splits import SplitRule, rules_of
from herdlm.tokens.tokenizer_files import TOKENIZER_BYTES

RESTORE = "Restore the file from its source"
EXPORT_HF = "Use export-hf: llama.cpp cannot represent this tokenizer"
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
GENERATION_MARK = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")


def tokenizer_to_gguf(folder: Path, rows: int, generation: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The metadata of the tokenizer in ``folder``, and what llama.cpp will do otherwise, as sentences.

    Args:
        rows: rows of the model's embedding; those without a token get an unused one.
        generation: the content of generation_config.json, whose stop tokens llama.cpp is told.

    Raises:
        InputError: there is no tokenizer.json, or llama.cpp has no such tokenizer.
        DamagedError: a file cannot be read.
    """
    path = folder / "tokenizer.json"
    definition, settings = _json(path), _json(folder / "tokenizer_config.json", optional=True)
    try:
        backend = Backend.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the backend raises bare Exception
        raise DamagedError(f"{path} is not a valid tokenizer: {error}", RESTORE) from error
    model, where = definition["model"], str(path)
    if model.get("type", "BPE") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise InputError(f"{where}: a {model.get('type')} model, or one with marks inside words", EXPORT_HF)
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    vocabulary: dict[str, int] = model["vocab"]
    added = definition.get("added_tokens") or []
    ids = vocabulary | {token["content"]: token["id"] for token in added}
    if max(ids.values()) >= rows:
        raise InputError(
            f"{where} has token {max(ids.values())}, the model {rows} rows", "Use the model's own tokenizer"
        )
    notes: list[str] = []
    if model.get("byte_fallback"):
        pieces = {token: id for token, id in vocabulary.items() if _kind(token, model) == NORMAL}
        for token in added:
            pieces.pop(token["content"], None)
        own = _sentencepiece(definition, merges, pieces, rows=rows, where=where, notes=notes)
    else:
        own = _byte_level(definition, merges, where, notes)
    tokens, kinds = _tokens(ids, added, model, rows)
    if any(token.get("lstrip") or token.get("rstrip") or token.get("single_word") for token in added):
        notes.append("Some added tokens take spaces beside them; llama.cpp keeps those spaces.")
    roles = _roles(settings, generation, ids, where)
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        **own,
        **{f"tokenizer.ggml.{role}_token_id": id for role, id in roles.items()},
        **_around(backend, roles, where),
        **_stops(roles, generation, tokens, notes),
        **_template(folder, settings),
    }, notes


def _json(path: Path, optional: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if optional:
            return {}
        raise InputError(f"{path.parent} holds no {path.name}", "Give a model folder with its tokenizer")
    value = read_object(path, RESTORE, most=TOKENIZER_BYTES)
    if not optional and not isinstance(value.get("model"), dict):
        raise DamagedError(f"{path} has not the keys of a tokenizer", RESTORE)
    return value


def _kind(token: str, model: Mapping[str, Any]) -> int:
    if not model.get("byte_fallback"):
        return NORMAL
    return UNKNOWN if token == model.get("unk_token") else BYTE if BYTE_TOKEN.fullmatch(token) else NORMAL


def _tokens(
    ids: Mapping[str, int], added: list[dict[str, Any]], model: Mapping[str, Any], rows: int
) -> tuple[list[str], list[int]]:
    """Token and kind of each row of the embedding; rows without a token get an unused one."""
    tokens, kinds = [f"[PAD{id}]" for id in range(rows)], [UNUSED] * rows
    for token, id in ids.items():
        tokens[id], kinds[id] = token, _kind(token, model)
    for entry in added:
        id = entry["id"]
        if kinds[id] == UNKNOWN:
            continue
        kinds[id] = CONTROL if entry.get("special") else USER_DEFINED
        if kinds[id] == USER_DEFINED and entry.get("normalized"):
            tokens[id] = tokens[id].replace(SPACE, " ")  # llama.cpp looks for it in raw text
    return tokens, kinds


def _byte_level(
    definition: Mapping[str, Any], merges: list[tuple[str, ...]], where: str, notes: list[str]
) -> dict[str, Any]:
    normalizer = definition.get("normalizer") or {}
    if normalizer.get("type") == "NFC":
        notes.append("The tokenizer composes characters (NFC) before it splits text; llama.cpp does not.")
    elif normalizer and normalizer != {"type": "Sequence", "normalizers": []}:
        raise InputError(f"{where}: llama.cpp has no normalizer {normalizer}", EXPORT_HF)
    rules = rules_of(definition.get("pre_tokenizer") or {}, where)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _rule(rules, definition["model"], merges, where).names[0],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
    }


def _rule(rules: list[SplitRule], model: Mapping[str, Any], merges: list[tuple[str, ...]], where: str) -> SplitRule:
    """The rule that takes whole words as the tokenizer does. If merges make every token, all rules do the same."""
    for rule in rules:
        if rule.whole_words == bool(model.get("ignore_merges")):
            return rule
    bpe = models.BPE(vocab=dict(model["vocab"]), merges=[(left, right) for left, right in merges])
    made = {merge[0] + merge[1] for merge in merges}
    lost = next((token for token in made if len(bpe.tokenize(token)) != 1), None)
    if lost is not None:
        raise InputError(
            f"{where}: ignore_merges matters for the token {lost!r}, but llama.cpp's rule {rules[0].names[0]} "
            f"{'sets' if rules[0].whole_words else 'does not set'} it",
            EXPORT_HF,
        )
    return rules[0]


def _sentencepiece(
    definition: Mapping[str, Any],
    merges: list[tuple[str, ...]],
    pieces: Mapping[str, int],
    *,
    rows: int,
    where: str,
    notes: list[str],
) -> dict[str, Any]:
    """Scores in place of merges: llama.cpp joins the neighbors whose concatenation has the best score.

    That is the same only if every division of a piece is a merge, and the merges that make one piece are neighbors in
    rank; so are those of tokenizers that came from SentencePiece.
    """
    scores: dict[str, float] = {}
    groups: list[set[tuple[str, ...]]] = []
    for merge in merges:
        piece = merge[0] + merge[1]
        if piece not in scores:
            scores[piece] = -float(len(scores))
            groups.append(set())
        groups[-1].add(merge)
    scores |= {piece: -float(len(scores) + id) for piece, id in pieces.items() if piece not in scores}
    if [set(group) for group in merges_from_scores(scores, pieces | definition["model"]["vocab"])] != groups:
        raise InputError(f"{where}: its merges are not those of SentencePiece, which has scores only", EXPORT_HF)
    by_id = [0.0] * rows
    for piece, score in scores.items():
        by_id[definition["model"]["vocab"][piece]] = score
    prefix = _space_prefix(definition, pieces, where, notes)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": by_id,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def _space_prefix(definition: Mapping[str, Any], pieces: Mapping[str, int], where: str, notes: list[str]) -> bool:
    """Whether a space is put before text, from the two ways to say so in a tokenizer.json."""
    normalizer, pre = definition.get("normalizer") or {}, definition.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    if not pre and steps in ([prepend, mark], [mark, prepend], [mark]):
        return prepend in steps
    if steps or pre.get("type") != "Metaspace" or pre.get("replacement") != SPACE:
        raise InputError(f"{where}: llama.cpp has no normalizer {steps} with pre_tokenizer {pre}", EXPORT_HF)
    inside = next((piece for piece in pieces if SPACE in piece[1:]), None)
    if pre.get("split", True) and inside is not None:
        raise InputError(f"{where}: llama.cpp does not split before spaces, and {inside!r} has one", EXPORT_HF)
    scheme = pre.get("prepend_scheme", "always" if pre.get("add_prefix_space", True) else "never")
    if scheme == "first":
        notes.append("The tokenizer puts a space before text that starts with no special token; llama.cpp never does.")
    return bool(scheme == "always")


def _roles(
    settings: Mapping[str, Any], generation: Mapping[str, Any], ids: Mapping[str, int], where: str
) -> dict[str, int]:
    roles: dict[str, int] = {}
    for role, key in ROLES.items():
        name = settings.get(f"{role}_token")
        name = name.get("content") if isinstance(name, dict) else name
        stated = generation.get(f"{role}_token_id")
        stated = stated[0] if isinstance(stated, list) and stated else stated
        id = ids.get(name, stated) if isinstance(name, str) else stated
        if isinstance(id, int):
            roles[key] = id
    if "eos" not in roles:
        raise InputError(f"{where}: nothing names the end token", "Set eos_token in tokenizer_config.json")
    return roles


def _around(backend: Backend, roles: Mapping[str, int], where: str) -> dict[str, bool]:
    """Whether a begin and an end token are put around text."""
    alone = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    for begin in (False, True):
        for end in (False, True):
            expected = [roles.get("bos")] * begin + alone + [roles.get("eos")] * end
            if whole == expected:
                return {"tokenizer.ggml.add_bos_token": begin, "tokenizer.ggml.add_eos_token": end}
    raise InputError(f"{where}: its post_processor puts other tokens than bos and eos around text", EXPORT_HF)


def _stops(
    roles: Mapping[str, int], generation: Mapping[str, Any], tokens: list[str], notes: list[str]
) -> dict[str, int]:
    """Keys of the stop tokens besides eos: end of message, and one more as end of turn."""
    stated = generation.get("eos_token_id")
    ids = [id for id in (stated if isinstance(stated, list) else [stated]) if isinstance(id, int)]
    rest = [id for id in ids if id != roles["eos"] and id < len(tokens)]
    keys = {}
    message = next((id for id in rest if tokens[id] == "<|eom_id|>"), None)
    if message is not None:
        keys["tokenizer.ggml.eom_token_id"] = message
        rest.remove(message)
    # llama.cpp finds the usual names itself, so the key is for one that it would not find.
    rest.sort(key=lambda id: tokens[id] in ENDS)
    if rest:
        keys["tokenizer.ggml.eot_token_id"] = rest[0]
    for id in rest[1:]:
        if tokens[id] not in ENDS:
            notes.append(f"llama.cpp does not stop at {tokens[id]!r}, as generation_config.json asks.")
    return keys


def _template(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The chat template, without marks of what the assistant writes, which only transformers knows."""
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not template:
        return {}
    plain = GENERATION_MARK.sub(lambda m: m[1] + ("endif" if m[2] else "if true") + m[3], template)
    return {"tokenizer.chat_template": plain}
