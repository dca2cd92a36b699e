"""The documentation: every recipe key that it shows or names exists."""

import re
import tomllib
from types import UnionType
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from herdlm.base.recipe import merge
from herdlm.recipe import Recipe, read_recipe
from herdlm.scaling.mix_candidates import CandidatesConfig
from tests.run.conftest import ROOT, toml_blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [pytest.param(text, id=f"{page.stem}-{n}") for page in PAGES for n, text in enumerate(toml_blocks(page))]
KEY = re.compile(r"`([a-z_]+(?:\.[A-Za-z0-9_-]+)+)(?: ?=[^`]*)?`")
FILES = {"json", "jsonl", "md", "parquet", "py", "toml", "txt"}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_recipes_have_known_keys_and_values(text):
    tables = tomllib.loads(text)
    tables.pop("extends", None)
    schema = CandidatesConfig if "candidates" in tables else Recipe
    whole = merge({"name": "example", "data": {"sources": ["a"]}}, tables) if schema is Recipe else tables
    try:
        schema.model_validate(whole)
    except ValidationError as error:
        # An example may leave out required keys. What holds between keys is checked only when none is missing.
        assert {problem["type"] for problem in error.errors()} <= {"missing"}, error


def named_keys(page):
    keys = set(KEY.findall(page.read_text(encoding="utf-8")))
    return sorted(k for k in keys if k.split(".")[0] in Recipe.model_fields and k.split(".")[-1] not in FILES)


def is_key(annotation, parts) -> bool:
    """Whether a dotted path leads to a key below a value of this type; a table keyed by name takes any name."""
    if not parts:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(parts[0])
        return field is not None and is_key(field.annotation, parts[1:])
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return is_key(arguments[1], parts[1:])
    if get_origin(annotation) is tuple:
        return is_key(arguments[0], parts)
    return isinstance(annotation, UnionType) and any(is_key(argument, parts) for argument in arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_keys_that_a_page_names_exist(page):
    assert [key for key in named_keys(page) if not is_key(Recipe, key.split("."))] == []


def test_a_wrong_key_would_be_found():
    assert is_key(Recipe, ["herd", "models", "NAME", "parallel", "tp"])
    assert not is_key(Recipe, ["herd", "models", "NAME", "paralel"])
    assert not is_key(Recipe, ["pretrain", "long_context", "seq_length"])
    assert "tokens.sources" in named_keys(ROOT / "docs" / "recipes.md")


def test_the_example_of_unset_keys_leaves_parts_out(tmp_path):
    text = next(text for text in toml_blocks(ROOT / "docs" / "recipes.md") if "quantize = false" in text)
    (tmp_path / "mine.toml").write_text(text.replace("tiny.toml", str(ROOT / "recipes" / "tiny.toml")))
    recipe = read_recipe(tmp_path / "mine.toml")
    assert (recipe.quantize, recipe.align.teach, recipe.herd.small, recipe.herd.ladder) == (None, None, None, ())
