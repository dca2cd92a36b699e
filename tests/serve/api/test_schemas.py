"""Schemas whose objects and numbers end, judged by the grammar library's own matcher over bytes."""

import pytest
from llguidance import LLMatcher, LLTokenizer

from herdlm.generate.sampling.grammar import Grammar
from herdlm.serve.api.schemas import bounded

BYTES = LLTokenizer("byte")


def accepts(schema, text):
    matcher = LLMatcher(BYTES, Grammar.json_schema(bounded(schema)).text)
    tokens = BYTES.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def thing(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


WHOLE = {"type": "integer"}
REFERRED = {
    "allOf": [{"$ref": "#/$defs/A"}, thing(b=WHOLE)],
    "$defs": {"A": thing(a=WHOLE), "B": {"allOf": [{"$ref": "#/$defs/A"}]}},
}
CASES = [
    (thing(a=WHOLE), '{"a": 1}', '{"a": 1, "b": 2}'),
    (thing(a=thing(b=WHOLE)), '{"a": {"b": 1}}', '{"a": {"b": 1, "c": 2}}'),
    ({"allOf": [thing(a=WHOLE), thing(b=WHOLE)]}, '{"a": 1, "b": 2}', '{"a": 1, "b": 2, "c": 3}'),
    (REFERRED, '{"a": 1, "b": 2}', '{"a": 1, "b": 2, "c": 3}'),
    ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": thing(a=WHOLE)}}, '{"a": 1}', '{"a": 1, "b": 2}'),
    ({"anyOf": [thing(a=WHOLE), thing(b=WHOLE)]}, '{"b": 2}', '{"b": 2, "c": 3}'),
    ({"type": "array", "items": thing(a=WHOLE)}, '[{"a": 1}]', '[{"a": 1, "b": 2}]'),
    (thing(n={"type": "number"}), '{"n": 3.25}', '{"n": 3.1415926535897931}'),
    (thing(n={"type": ["integer", "null"]}), '{"n": null}', '{"n": 99999999999999999999}'),
    (thing(n={"type": "integer", "minimum": 10**17}), '{"n": 100000000000000001}', '{"n": 5}'),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), CASES)
def test_objects_and_numbers_end(schema, right, wrong):
    assert accepts(schema, right)
    assert not accepts(schema, wrong)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (thing(a=WHOLE) | {"additionalProperties": True}, '{"a": 1, "b": 2}'),
        ({"type": "object"}, '{"x": 1}'),
        ({"type": "object", "additionalProperties": WHOLE}, '{"x": 1}'),
        (thing(a=WHOLE) | {"anyOf": [thing(b=WHOLE), thing(c=WHOLE)]}, '{"a": 1, "b": 2}'),
        ({"allOf": [thing(a=WHOLE) | {"additionalProperties": True}, thing(b=WHOLE)]}, '{"a": 1, "b": 2, "c": 3}'),
    ],
)
def test_what_a_schema_leaves_open_on_purpose_stays_open(schema, text):
    assert accepts(schema, text)


def test_a_schema_that_refers_to_itself_ends():
    tree = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}}}}
    assert accepts(tree, '{"next": {"next": {}}}')
    assert not accepts(tree, '{"next": {"other": 1}}')
    assert bounded({"allOf": [{"$ref": "#"}, {"$ref": "#/allOf/0"}]})
