"""The tokenizer of a GGUF file as the files of a Hugging Face folder.

GGUF stores tokens by id, each with a kind, and merges (byte-level BPE) or scores (SentencePiece). tokenizer.json stores
merges for both. llama.cpp ends a text at several tokens, some found by their text; they become the ``eos_token_id`` of
generation_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.gguf_splits import pre_tokenizer, rule_named

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # values of tokenizer.ggml.token_type
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # Hugging Face's name and GGUF's
# Special tokens at which llama.cpp ends a text, whatever the ids in the file.
ENDS = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>"}
ENDS |= {"<EOT>", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<\uff5cend\u2581of\u2581sentence\uff5c>"}
SPACE = "\u2581"  # SentencePiece's mark of a space
FETCH_AGAIN = "Download or create the file again"


@dataclass(frozen=True)
class ImportedTokenizer:
    """The files of a tokenizer, and the token ids that generation needs."""

    definition: dict[str, Any]
    config: dict[str, Any]
    template: str | None
    generation: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja."""
        for name, value in (("tokenizer.json", self.definition), ("tokenizer_config.json", self.config)):
            (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if self.template is not None:
            (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str, rows: int) -> ImportedTokenizer:
    """The tokenizer that a file's metadata describe.

    Args:
        where: the file's path, for errors.
        rows: rows of the model's embedding; tokens may be fewer.

    Raises:
        InputError: kind or split rule of the tokenizer is unknown.
        DamagedError: keys are missing or contradict each other.
    """
    vocabulary = _Vocabulary.read(metadata, where, rows)
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        definition, begins = _byte_level(metadata, vocabulary)
    elif kind == "llama":
        definition, begins = _sentencepiece(metadata, vocabulary), True
    else:
        raise InputError(f"{where}: tokenizer.ggml.model is {kind!r}", "Known: gpt2 and llama")
    roles = {role: vocabulary.role(metadata, key) for role, key in ROLES.items()}
    begin = roles["bos"] if metadata.get("tokenizer.ggml.add_bos_token", begins) else None
    end = roles["eos"] if metadata.get("tokenizer.ggml.add_eos_token", False) else None
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(),
        **definition,
        "post_processor": _post_processor(vocabulary, begin, end),
    }
    _check(definition, vocabulary)
    names = {f"{role}_token": vocabulary.tokens[id] for role, id in roles.items() if id is not None}
    stops = vocabulary.stops(metadata)
    ids: dict[str, Any] = {"bos_token_id": roles["bos"], "pad_token_id": roles["pad"]}
    if stops:
        ids["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    return ImportedTokenizer(
        definition,
        {"tokenizer_class": "PreTrainedTokenizerFast", **names, "clean_up_tokenization_spaces": False},
        metadata.get("tokenizer.chat_template"),
        {key: value for key, value in ids.items() if value is not None},
    )


@dataclass(frozen=True)
class _Vocabulary:
    """Tokens by id, their kinds, and how many of them the BPE model must hold for ids to come out right."""

    where: str
    tokens: Sequence[str]
    kinds: Sequence[int]

    @classmethod
    def read(cls, metadata: Mapping[str, Any], where: str, rows: int) -> _Vocabulary:
        tokens = _strings(metadata, "tokenizer.ggml.tokens", where)
        kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
        if len(kinds) != len(tokens):
            raise DamagedError(f"{where}: {len(tokens)} tokens, but {len(kinds)} kinds of token", FETCH_AGAIN)
        if len(tokens) > rows:
            raise DamagedError(f"{where}: {len(tokens)} tokens, but the embedding has {rows} rows", FETCH_AGAIN)
        end = len(tokens)  # rows without a token at the end belong to the model only
        while end and kinds[end - 1] == UNUSED:
            end -= 1
        tokens, kinds = tokens[:end], kinds[:end]
        seen: dict[str, int] = {}
        for id, token in enumerate(tokens):
            if seen.setdefault(token, id) != id:
                raise DamagedError(f"{where}: tokens {seen[token]} and {id} are both {token!r}", FETCH_AGAIN)
        return cls(where, tokens, kinds)

    def ids(self) -> dict[str, int]:
        """The tokens of the BPE model: all but the added ones at the end, which tokenizer.json numbers on."""
        end = len(self.tokens)
        while end and self.kinds[end - 1] in (CONTROL, USER_DEFINED, UNKNOWN):
            end -= 1
        return {token: id for id, token in enumerate(self.tokens[:end])}

    def added(self) -> list[dict[str, Any]]:
        """Tokens that are found in text before it is split. Those of use to a model only are special."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return [
            {"id": id, "content": token, **flags, "special": kind != USER_DEFINED}
            for id, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if kind in (CONTROL, USER_DEFINED, UNKNOWN)
        ]

    def role(self, metadata: Mapping[str, Any], key: str) -> int | None:
        """The id of a role such as "bos"; llama.cpp ignores ids outside of the vocabulary."""
        id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        return id if isinstance(id, int) and 0 <= id < len(self.tokens) else None

    def stops(self, metadata: Mapping[str, Any]) -> list[int]:
        """The tokens at which llama.cpp ends a text, that of the file first."""
        ids = [self.role(metadata, key) for key in ("eos", "eot", "eom")]
        ids += [id for id, token in enumerate(self.tokens) if token in ENDS and self.kinds[id] == CONTROL]
        return list(dict.fromkeys(id for id in ids if id is not None))


def _strings(metadata: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DamagedError(f"{where}: key {key} is missing or no list of strings", FETCH_AGAIN)
    return value


def _byte_level(metadata: Mapping[str, Any], vocabulary: _Vocabulary) -> tuple[dict[str, Any], bool]:
    where = vocabulary.where
    name = metadata.get("tokenizer.ggml.pre", "default")
    rule = rule_named(name, where)
    ids = vocabulary.ids()
    merges = []
    for merge in _strings(metadata, "tokenizer.ggml.merges", where):
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids or left + right not in ids:
            raise DamagedError(f"{where}: the merge {merge!r} is not of tokens of the vocabulary", FETCH_AGAIN)
        merges.append([left, right])
    # Qwen2's own tokenizer composes characters first, which GGUF has no key for.
    composes = metadata.get("general.architecture") == "qwen2" and name == "qwen2"
    return {
        "normalizer": {"type": "NFC"} if composes else None,
        "pre_tokenizer": pre_tokenizer(rule),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _model(ids, merges, ignore_merges=rule.whole_words),
    }, rule.begins


def _sentencepiece(metadata: Mapping[str, Any], vocabulary: _Vocabulary) -> dict[str, Any]:
    where = vocabulary.where
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) < len(vocabulary.tokens):
        raise DamagedError(f"{where}: tokenizer.ggml.scores has not a number for each token", FETCH_AGAIN)
    unknown = [token for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True) if kind == UNKNOWN]
    prefixed = metadata.get("tokenizer.ggml.add_space_prefix", True)
    mark: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unmark: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefixed:
        mark = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, mark]}
        unmark.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    ids = {token: id for id, token in enumerate(vocabulary.tokens)}
    pieces = {token: scores[id] for id, token in enumerate(vocabulary.tokens) if vocabulary.kinds[id] == NORMAL}
    merges = [list(pair) for pairs in merges_from_scores(pieces, ids) for pair in pairs]
    return {
        "normalizer": mark,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": unmark},
        "model": _model(ids, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown[0] if unknown else None),
    }


def merges_from_scores(pieces: Mapping[str, float], ids: Mapping[str, int]) -> list[list[tuple[str, str]]]:
    """The merges that make each piece, best score first.

    SentencePiece joins the two neighbors whose concatenation has the best score. As merges, that is every division of a
    piece into two pieces, ranked by the piece's score.
    """
    ranked = sorted(pieces, key=lambda piece: (-pieces[piece], ids[piece]))
    groups = []
    for piece in ranked:
        pairs = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in pieces and pair[1] in pieces]
        if pairs:
            groups.append(sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]])))
    return groups


def _model(ids: dict[str, int], merges: list[list[str]], **settings: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": ids,
        "merges": merges,
    }


def _post_processor(vocabulary: _Vocabulary, begin: int | None, end: int | None) -> dict[str, Any]:
    """What is put around text when special tokens are asked for."""

    def special(id: int | None, sequence: int) -> list[dict[str, Any]]:
        return [] if id is None else [{"SpecialToken": {"id": vocabulary.tokens[id], "type_id": sequence}}]

    def around(name: str, sequence: int) -> list[dict[str, Any]]:
        text = {"Sequence": {"id": name, "type_id": sequence}}
        return [*special(begin, sequence), text, *special(end, sequence)]

    used = {vocabulary.tokens[id]: id for id in (begin, end) if id is not None}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]} for token, id in used.items()},
    }


def _check(definition: dict[str, Any], vocabulary: _Vocabulary) -> None:
    """Every token has the id of the file."""
    try:
        backend = Backend.from_str(json.dumps(definition))
    except Exception as error:  # the backend raises bare Exception
        raise DamagedError(f"{vocabulary.where}: its tokenizer is not valid: {error}", FETCH_AGAIN) from error
    for id, token in enumerate(vocabulary.tokens):
        if backend.token_to_id(token) != id:
            raise InputError(
                f"{vocabulary.where}: token {id}, {token!r}, cannot keep its id in a tokenizer.json", "Use another file"
            )
