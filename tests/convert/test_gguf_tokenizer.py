"""Tokenizers into GGUF and back: token ids against SentencePiece's rule by hand, transformers and llama.cpp."""

import json
import random

import pytest
from jinja2 import Environment
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from herdlm.base.errors import DamagedError, InputError
from herdlm.model.gguf_file import write_gguf
from herdlm.tokens.gguf_export import tokenizer_to_gguf
from herdlm.tokens.gguf_import import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, tokenizer_from_gguf
from herdlm.tokens.gguf_splits import RULES, pre_tokenizer, rules_of
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from tests.conftest import TEXT
from tests.convert import llama_cpp

PARTS = [
    "the",
    " package",
    "s",
    " disk",
    "12",
    " 345",
    "7",
    " ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "é",
    "ñandú",
    "你好",
    "한국어",
]
PARTS += [
    "Привет",
    "عربي",
    "🙂",
    "👩‍👩‍👧",
    "def f(x):\n    return",
    "don't",
    "WE'LL",
    "==",
    "…",
    "½",
    "e\u0301",
    "\u00a0",
    "▁",
    "\r\n",
]


def texts(count=200, seed=0):
    """Texts of several scripts, digits, runs of whitespace, emoji and code."""
    draw = random.Random(seed)
    return ["".join(draw.choices(PARTS, k=draw.randint(1, 10))) for _ in range(count)]


def backend_of(imported):
    return Backend.from_str(json.dumps(imported.definition))


def ids(backend, text):
    return backend.encode(text, add_special_tokens=False).ids


def folder_with(folder, backend, **settings):
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


# --- SentencePiece

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁▁", "▁t", "he", "in", "re", "▁the"]
PIECES += ["▁▁▁▁", "th", "er", "the", "▁in", "her", "here", "▁here", "<|user|>", "▁", "e", "t", "h", "i", "n", "r", "s"]
KINDS = [UNKNOWN, CONTROL, CONTROL, *[6] * 256, *[NORMAL] * 14, USER_DEFINED, *[NORMAL] * 8]
SCORES = [0.0] * 259 + [-float(i) for i in range(len(PIECES) - 259)]


def sentencepiece_metadata(**changes):
    values = {"model": "llama", "tokens": PIECES, "scores": SCORES, "token_type": KINDS, "add_space_prefix": True}
    values |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": True, "pre": "default"}
    return {f"tokenizer.ggml.{key}": value for key, value in (values | changes).items()}


def by_hand(text, prefix=True):
    """SentencePiece: join neighbors whose concatenation has the best score, leftmost first; the rest is bytes."""
    scores = {p: s for p, s, k in zip(PIECES, SCORES, KINDS, strict=True) if k == NORMAL}
    out = []
    for number, part in enumerate(text.split("<|user|>")):
        out += [PIECES.index("<|user|>")] if number else []
        symbols = list(("▁" if prefix and part else "") + part.replace(" ", "▁"))
        while True:
            pairs = [
                (scores.get(a + b, -1e9), -at) for at, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False))
            ]
            if not pairs or max(pairs)[0] == -1e9:
                break
            at = -max(pairs)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        for symbol in symbols:
            out += [PIECES.index(symbol)] if symbol in scores else [3 + byte for byte in symbol.encode()]
    return out


def sentencepiece_texts():
    draw = random.Random(1)
    parts = ["the", "there", "here", " in", "thin", " ", "  ", "    ", "her", "x", "é", "🙂", "\n", "<|user|>", "rein"]
    return ["".join(draw.choices(parts, k=draw.randint(1, 9))) for _ in range(300)]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_scores_become_merges_that_give_the_same_tokens(prefix):
    imported = tokenizer_from_gguf(sentencepiece_metadata(add_space_prefix=prefix), "m.gguf", len(PIECES))
    backend = backend_of(imported)
    for text in sentencepiece_texts():
        assert ids(backend, text) == by_hand(text, prefix), text
    assert backend.encode("the").ids == [1, *by_hand("the", prefix)]
    assert backend.decode(ids(backend, "there é 🙂 in")) == "there é 🙂 in"
    assert imported.generation == {"bos_token_id": 1, "eos_token_id": 2}
    assert (imported.config["unk_token"], imported.config["eos_token"]) == ("<unk>", "</s>")


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_there_and_back(tmp_path, prefix):
    imported = tokenizer_from_gguf(sentencepiece_metadata(add_space_prefix=prefix), "m.gguf", len(PIECES))
    imported.save(tmp_path)
    metadata, notes = tokenizer_to_gguf(tmp_path, len(PIECES) + 3, {"eos_token_id": 2})
    assert notes == []
    assert metadata["tokenizer.ggml.tokens"][: len(PIECES)] == PIECES
    assert metadata["tokenizer.ggml.token_type"] == [*KINDS, *[UNUSED] * 3]
    assert metadata["tokenizer.ggml.add_space_prefix"] is prefix
    again = backend_of(tokenizer_from_gguf(metadata, "m.gguf", len(PIECES) + 3))
    for text in sentencepiece_texts():
        assert ids(again, text) == by_hand(text, prefix)


def test_merges_that_scores_cannot_say_are_refused(tmp_path):
    imported = tokenizer_from_gguf(sentencepiece_metadata(), "m.gguf", len(PIECES))
    imported.definition["model"]["merges"].remove(["he", "re"])  # so "here" is no longer made of "he" and "re"
    imported.save(tmp_path)
    with pytest.raises(InputError, match="not those of SentencePiece"):
        tokenizer_to_gguf(tmp_path, len(PIECES), {})


def test_metaspace_is_the_other_way_to_say_the_same(tmp_path):
    imported = tokenizer_from_gguf(sentencepiece_metadata(), "m.gguf", len(PIECES))
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    imported.definition.update(normalizer=None, pre_tokenizer=meta)
    imported.save(tmp_path)
    metadata, notes = tokenizer_to_gguf(tmp_path, len(PIECES), {})
    assert metadata["tokenizer.ggml.add_space_prefix"] is False
    assert "puts a space before text" in notes[0]
    meta["prepend_scheme"] = "always"
    imported.save(tmp_path)
    metadata, notes = tokenizer_to_gguf(tmp_path, len(PIECES), {})
    assert (metadata["tokenizer.ggml.add_space_prefix"], notes) == (True, [])
    meta["split"] = True  # a piece of four spaces would never be found
    imported.save(tmp_path)
    with pytest.raises(InputError, match="does not split before spaces"):
        tokenizer_to_gguf(tmp_path, len(PIECES), {})


# --- byte-level BPE


@pytest.mark.parametrize("single_digits", [False, True])
def test_herdlms_tokenizers_there_and_back(tmp_path, single_digits):
    own = train_tokenizer([TEXT], TokenizerConfig(vocab_size=400, single_digits=single_digits))
    own.save(tmp_path)
    metadata, notes = tokenizer_to_gguf(tmp_path, 405, {"eos_token_id": [393, 397, 398]})
    assert notes == []
    assert metadata["tokenizer.ggml.pre"] == ("qwen2" if single_digits else "llama-bpe")
    assert metadata["tokenizer.ggml.token_type"][391:] == [NORMAL, *[CONTROL] * 8, *[UNUSED] * 5]
    imported = tokenizer_from_gguf(metadata, "m.gguf", 405)
    backend = backend_of(imported)
    own.backend.encode_special_tokens = False
    for text in [*texts(), "<|eot_id|>the<|start_header_id|>"]:
        assert ids(backend, text) == ids(own.backend, text), text
    assert backend.encode("the").ids == own.backend.encode("the").ids
    assert imported.generation["eos_token_id"] == [398, 393, 397]
    template = (tmp_path / "chat_template.jinja").read_text()
    assert imported.template == template.replace(" generation ", " if true ").replace(" endgeneration ", " endif ")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.names[0])
def test_each_rule_is_a_pre_tokenizer_and_is_found_again(rule):
    definition = pre_tokenizer(rule)
    Backend.from_str(
        json.dumps({"version": "1.0", "pre_tokenizer": definition, "model": {"type": "BPE", "vocab": {}, "merges": []}})
    )
    assert rule in rules_of(definition, "tokenizer.json")


def simple(pre, **model):
    """A byte-level tokenizer without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate([*alphabet, "<end>"])}, merges=[], **model))
    backend.pre_tokenizer, backend.decoder = pre, decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return backend


def test_smollms_steps_are_recognized(tmp_path):
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    folder = folder_with(tmp_path / "smollm", simple(pre), eos_token="<end>")
    assert tokenizer_to_gguf(folder, 257, {})[0]["tokenizer.ggml.pre"] == "smollm"
    folder = folder_with(tmp_path / "gpt-2", simple(level), eos_token={"content": "<end>"})
    metadata, _ = tokenizer_to_gguf(folder, 257, {})
    assert (metadata["tokenizer.ggml.pre"], metadata["tokenizer.ggml.eos_token_id"]) == ("gpt-2", 256)
    assert metadata["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    ("pre", "message"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=True), "nothing like the step"),
        (pre_tokenizers.Sequence([pre_tokenizers.Split("x", "isolated"), pre_tokenizers.ByteLevel(False)]), "no rule"),
        (pre_tokenizers.Whitespace(), "nothing like the step"),
    ],
)
def test_split_rules_that_llama_cpp_lacks_are_refused(tmp_path, pre, message):
    folder = folder_with(tmp_path / "model", simple(pre), eos_token="<end>")
    with pytest.raises(InputError, match=message):
        tokenizer_to_gguf(folder, 257, {})


def test_other_refusals(tmp_path):
    backend = simple(pre_tokenizers.ByteLevel(False))
    folder = folder_with(tmp_path / "model", backend)
    with pytest.raises(InputError, match="nothing names the end token"):
        tokenizer_to_gguf(folder, 257, {})
    with pytest.raises(InputError, match="the model 200 rows"):
        tokenizer_to_gguf(folder, 200, {"eos_token_id": 256})
    backend.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="Lowercase"):
        tokenizer_to_gguf(folder_with(tmp_path / "lower", backend), 257, {"eos_token_id": 256})
    words = Backend(models.WordLevel(vocab={"a": 0}, unk_token="a"))
    with pytest.raises(InputError, match="WordLevel"):
        tokenizer_to_gguf(folder_with(tmp_path / "words", words), 257, {})
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    with pytest.raises(DamagedError, match="not valid JSON"):
        tokenizer_to_gguf(folder, 257, {})
    with pytest.raises(InputError, match=r"holds no tokenizer.json"):
        tokenizer_to_gguf(tmp_path, 257, {})


def test_a_stop_token_that_llama_cpp_cannot_know_is_told_and_a_second_one_noted(tmp_path):
    backend = simple(pre_tokenizers.ByteLevel(False))
    backend.add_special_tokens(["<stop>", "<halt>"])
    folder = folder_with(tmp_path / "model", backend, eos_token="<end>")
    metadata, notes = tokenizer_to_gguf(folder, 259, {"eos_token_id": [256, 257, 258]})
    assert metadata["tokenizer.ggml.eot_token_id"] == 257
    assert notes == ["llama.cpp does not stop at '<halt>', as generation_config.json asks."]
    assert tokenizer_from_gguf(metadata, "m.gguf", 259).generation["eos_token_id"] == [256, 257]


def test_marks_of_generation_leave_the_template(tmp_path):
    marked = (
        "{% for m in messages %}{{ m.role }}: {% generation -%}\n {{ m.content }}\n{%- endgeneration %}\n{% endfor %}"
    )
    folder = folder_with(tmp_path / "model", simple(pre_tokenizers.ByteLevel(False)), eos_token="<end>")
    (folder / "chat_template.jinja").write_text(marked)
    template = tokenizer_to_gguf(folder, 257, {})[0]["tokenizer.chat_template"]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    rendered = Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(messages=messages)
    assert rendered == "user: x\nassistant: y\n".replace("\n", "")


# --- llama.cpp


def test_llama_cpp_gives_the_same_ids(tmp_path):
    for single_digits in (False, True):
        own = train_tokenizer([TEXT], TokenizerConfig(vocab_size=400, single_digits=single_digits))
        folder = tmp_path / str(single_digits)
        folder.mkdir()
        own.save(folder)
        metadata, _ = tokenizer_to_gguf(folder, 400, {})
        write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"} | metadata, [], "f32")
        theirs = llama_cpp.load(tmp_path / "m.gguf", vocab_only=True)
        own.backend.encode_special_tokens = False
        for text in [*texts(), "<|eot_id|>the<|start_header_id|>"]:
            assert llama_cpp.encode(theirs, text) == ids(own.backend, text), text


@pytest.mark.parametrize("prefix", [True, False])
def test_llama_cpp_gives_the_same_ids_with_sentencepiece(tmp_path, prefix):
    imported = tokenizer_from_gguf(sentencepiece_metadata(add_space_prefix=prefix), "m.gguf", len(PIECES))
    imported.save(tmp_path)
    metadata, _ = tokenizer_to_gguf(tmp_path, len(PIECES), {})
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"} | metadata, [], "f32")
    theirs = llama_cpp.load(tmp_path / "m.gguf", vocab_only=True)
    for text in sentencepiece_texts():
        assert llama_cpp.encode(theirs, text) == by_hand(text, prefix), text
