"""Answers in JSON against a schema."""

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.load import load_verifier

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize(
    "answer, reason",
    [
        ('{"age": 3}', "fits the schema"),
        ('Here:\n```json\n{"age": 3}\n```\nDone.', "fits the schema"),
        ('```\n{"age": 1}\n```\n```\n{"age": "x"}\n```', "does not fit the schema"),
        ('{"age": "3"}', "does not fit the schema"),
        ('{"age": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("age 3", "not JSON"),
    ],
)
def test_reasons(answer, reason):
    verdict = load_verifier("json")(answer, SCHEMA)
    assert (verdict.reason, verdict.passed) == (reason, reason == "fits the schema")


def test_options_say_where_the_schema_is_and_what_else_must_hold():
    assert load_verifier("json", {"schema": SCHEMA})('{"age": 3}').passed
    assert not load_verifier("json", {"schema": SCHEMA})('{"age": 3}', {"age": 4}).passed
    assert load_verifier("json", {"schema": SCHEMA})('{"age": 3}', {"age": 3}).passed
    assert not load_verifier("json", {"schema": {}})("1", True).passed
    assert not load_verifier("json", {"only": True})('```\n{"age": 3}\n```', SCHEMA).passed
    dated = {"type": "string", "format": "ipv4"}
    assert not load_verifier("json")('"x"', dated).passed
    assert load_verifier("json", {"formats": False})('"x"', dated).passed


def test_the_error_names_the_place():
    verdict = load_verifier("json")('{"age": "3"}', SCHEMA)
    assert verdict.details["at"] == "$.age"


@pytest.mark.parametrize(
    "schema, message",
    [
        ({"type": "cow"}, "schema is wrong"),
        (None, "not a JSON schema"),
        ({"$ref": "http://localhost:9/x"}, "cannot be used"),
    ],
)
def test_schemas_that_cannot_be_used_are_refused_and_nothing_is_fetched(schema, message):
    with pytest.raises(InputError, match=message):
        load_verifier("json")("{}", schema)
