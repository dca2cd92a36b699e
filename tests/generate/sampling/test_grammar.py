"""Output by grammar: every finished text is one, by another library's judgment, and every cut one begins one."""

from __future__ import annotations

import builtins
import json
import re
from functools import cache
from typing import Any

import jsonschema
import pytest

from herdlm.base.errors import InputError
from herdlm.generate import Completion, Engine, SamplingParams
from herdlm.generate.sampling.grammar import Grammar
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.tokens.tokenizer import END_OF_TEXT, END_OF_TURN, Tokenizer, TokenizerConfig, train_tokenizer

SCHEMAS: dict[str, dict[str, Any]] = {
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "email": {"type": "string", "pattern": "^[a-z]{1,8}@[a-z]{1,8}\\.(org|net)$"},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "choice": {"anyOf": [{"enum": ["red", "green", 3, None]}, {"const": {"x": [1, 2]}}, {"type": "boolean"}]},
    "numbers": {
        "type": "array",
        "minItems": 2,
        "maxItems": 4,
        "items": {"type": "number", "exclusiveMinimum": -1, "maximum": 1},
    },
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer", "minimum": 1, "maximum": 9},
                    "left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
                },
                "required": ["value", "left"],
                "additionalProperties": False,
            }
        },
    },
    "calendar": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "slots": {
                "type": "array",
                "maxItems": 3,
                "prefixItems": [{"type": "string", "format": "uuid"}],
                "items": {"type": "boolean"},
            },
        },
        "required": ["day", "slots"],
        "additionalProperties": False,
    },
    "map": {
        "type": "object",
        "patternProperties": {"^k[0-9]{1,2}$": {"type": "string", "maxLength": 5}},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    "both": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 50}}},
            {"type": "object", "properties": {"b": {"type": "string", "minLength": 2, "maxLength": 4}}},
        ],
        "required": ["b", "a"],
        "additionalProperties": False,
        "properties": {"a": {}, "b": {}},
    },
    "unicode": {
        "type": "object",
        "properties": {"gruß 🐄": {"enum": ["é", "日本"]}},
        "required": ["gruß 🐄"],
        "additionalProperties": False,
    },
}


@cache
def tokenizer() -> Tokenizer:
    texts = ['{"name": "cow", "age": 12, "tags": [true, null]} the cow says moo and the calf says: "moo" ' * 20]
    return train_tokenizer(texts, TokenizerConfig(vocab_size=304))


@cache
def model() -> Transformer:
    config = ModelConfig(max_seq_len=512, vocab_size=320, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48)
    built = build(config)
    initialize(built, seed=3, std=0.2)
    return built


def stops() -> tuple[int, ...]:
    return tokenizer().special(END_OF_TURN), tokenizer().special(END_OF_TEXT)


def sample(grammar: Grammar, **params: Any) -> list[Completion]:
    how = {"max_tokens": 400, "n": 25, "temperature": 2.0, "stop_tokens": stops(), **params}
    engine = Engine(model(), tokenizer(), max_batch=32, page_size=8)
    answers = engine.generate([[1, 2, 3]], SamplingParams(grammar=grammar, **how))[0]
    assert engine.pool.available == engine.pool.count
    return answers


@pytest.mark.parametrize("name", SCHEMAS)
def test_samples_at_temperature_two_satisfy_the_schema_and_cut_ones_begin_such(name):
    schema = SCHEMAS[name]
    judge = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    grammar = Grammar.json_schema(schema)
    whole = sample(grammar)
    finished = [completion.text for completion in whole if completion.finish_reason == "stop"]
    assert len(finished) >= 23
    for text in finished:
        judge.validate(json.loads(text))
    assert name in {"choice", "unicode"} or len(set(finished)) > 5
    for cut, completion in zip(sample(grammar, max_tokens=6), whole, strict=True):
        assert cut.tokens == completion.tokens[:6], "the same seed draws the same tokens, cut or not"
        assert cut.finish_reason == "stop" if len(completion.tokens) < 6 else cut.finish_reason in ("stop", "length")


def test_any_object_is_json_and_an_object():
    texts = [c.text for c in sample(Grammar.json_object(), temperature=1.5, n=32) if c.finish_reason == "stop"]
    assert len(texts) > 10
    assert all(isinstance(json.loads(text), dict) for text in texts)


def test_a_regular_expression_is_matched_as_a_whole():
    pattern = r"(moo|the cow){1,3}[0-9]{2,4}é?"
    for completion in sample(Grammar.regex(pattern)):
        assert re.fullmatch(pattern, completion.text)
        assert completion.finish_reason == "stop"


def test_a_context_free_grammar_is_kept_to():
    grammar = Grammar.lark('start: sum\nsum: term ("+" term)*\nterm: /[0-9]/ | "(" sum ")"')
    for completion in sample(grammar, temperature=1.0):
        if completion.finish_reason == "stop":
            assert re.fullmatch(r"[0-9+()]+", completion.text)
            assert isinstance(eval(completion.text), int)


def test_a_sample_ends_where_its_grammar_ends_also_without_stop_tokens():
    for completion in sample(Grammar.regex("moo[0-9]"), stop_tokens=()):
        assert re.fullmatch("moo[0-9]", completion.text)
        assert completion.finish_reason == "stop"
        assert len(completion.logprobs) == len(completion.tokens)


def test_stop_tokens_come_only_where_the_text_may_end():
    bias = tuple((stop, 100.0) for stop in stops())  # the model wants nothing more than to stop
    for completion in sample(Grammar.regex("(ab)+"), logit_bias=bias):
        assert completion.text == "ab"
    for completion in sample(Grammar.regex("(ab)+"), logit_bias=bias, min_tokens=5):
        assert completion.text == "ab" * 3
    for completion in sample(Grammar.regex("(ab){1,2}"), logit_bias=bias, min_tokens=9):
        assert completion.text == "abab", "a finished grammar ends a sample whatever min_tokens says"


def test_stop_strings_and_length_cut_a_grammar_short():
    assert all(c.text == "m" for c in sample(Grammar.regex("mooo+"), stop=("oo",)) if c.finish_reason == "stop")
    cut = sample(Grammar.regex("[a-z]{50}"), max_tokens=3)
    assert all(c.finish_reason == "length" and re.fullmatch("[a-z]+", c.text) for c in cut)


def test_samples_put_back_keep_their_place_in_the_grammar():
    schema = Grammar.json_schema(SCHEMAS["person"])
    params = SamplingParams(max_tokens=120, n=6, temperature=2.0, stop_tokens=stops(), grammar=schema)
    small = Engine(model(), tokenizer(), max_batch=12, page_size=4, cache_tokens=200)
    answers = small.generate([[1, 2, 3], [4, 5]], params)
    assert small.scheduler.preemptions > 0
    expected = Engine(model(), tokenizer()).generate([[1, 2, 3], [4, 5]], params)
    assert [[c.tokens for c in a] for a in answers] == [[c.tokens for c in a] for a in expected]


def test_a_grammar_that_gives_up_cuts_only_its_own_sample(caplog):
    engine = Engine(model(), tokenizer())
    params = SamplingParams(max_tokens=30, grammar=Grammar.regex("[a-z]+"), n=2)
    request = engine.submit([1], params)
    engine.step()
    sample = engine.scheduler.sequences.sample[0]
    assert sample is not None
    assert sample.matcher is not None
    monkey = pytest.MonkeyPatch()
    monkey.setattr(type(sample.matcher), "push", lambda self, token: setattr(self, "failed", self is sample.matcher))
    found = {}
    while engine.busy:
        for event in engine.step():
            assert event.request_id == request
            if event.completion:
                found[event.sample] = event.completion
    monkey.undo()
    assert [len(found[i].tokens) for i in (0, 1)] == [2, 30]
    assert [found[i].finish_reason for i in (0, 1)] == ["length", "length"]
    assert "grammar" in caplog.text


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[1]",
        "true",
        {"type": "objec"},
        {"not": {"type": "string"}},
        {"type": "array", "uniqueItems": True},
        {"$ref": "#/nowhere"},
        {"enum": []},
        {"type": "string", "pattern": "a(?=b)"},
        {"$ref": "https://example.com/schema.json"},
        {"x-guidance": {"lenient": True}, "not": {}},
    ],
    ids=str,
)
def test_schemas_that_cannot_be_enforced_are_refused(schema):
    with pytest.raises(InputError, match="JSON schema"):
        Grammar.json_schema(schema)


def test_broken_expressions_and_grammars_are_refused():
    with pytest.raises(InputError, match="regular expression"):
        Grammar.regex("[a-")
    with pytest.raises(InputError, match="grammar cannot be used"):
        Grammar.lark('start: "a" unknown')
    with pytest.raises(InputError, match="no text but the empty"):
        sample(Grammar.regex(""))


def test_without_the_library_the_error_names_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "llguidance":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"herdlm\[grammar\]"):
        Grammar.json_object()
