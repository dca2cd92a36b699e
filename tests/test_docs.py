"""The documentation: every recipe key that it shows or names exists."""

import re
import tomllib
from types import UnionType
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from herdlm.align.samples.rubric import Rubric
from herdlm.align.synth.config import SynthConfig
from herdlm.align.synth.registry import GENERATORS
from herdlm.base.recipe import merge
from herdlm.evaluate.task import TaskFile
from herdlm.pretrain.herd_config import SHAPE
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
    if "items" in tables:
        TaskFile.model_validate(tables)
        return
    if tables.keys() & {*GENERATORS, "own"}:
        SynthConfig.model_validate(tables)
        return
    if "criteria" in tables:
        Rubric.model_validate(tables)
        return
    schema = CandidatesConfig if "candidates" in tables else Recipe
    whole = merge({"name": "example", "data": {"sources": ["a"]}, "pretrain": {}}, tables)
    if "flagship" not in whole.get("herd", {}).get("models", {"flagship": None}):
        whole["herd"]["models"]["flagship"] = dict.fromkeys(SHAPE, 2)
    try:
        schema.model_validate(whole if schema is Recipe else tables)
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
        field = next((f for name, f in annotation.model_fields.items() if (f.alias or name) == parts[0]), None)
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


ARCHITECTURE = ROOT / "docs" / "architecture.md"
SOURCE = ROOT / "src" / "herdlm"
REFERENCE = re.compile(r":(?:mod|class|func|meth|attr|data):`~?herdlm\.([\w.]+)`")


def named_files(page: str) -> set[tuple[str, str]]:
    """Python files and folders in backquotes, each with the name after a colon, if any."""
    return set(re.findall(r"`((?:\w+/)*\w+\.py|(?:[a-z]\w*/)+)(?:: (\w+))?`", page))


def is_file_with(path: str, name: str) -> bool:
    """Whether a file or folder is below ``src/herdlm`` or in the repository and, if a file, defines ``name``."""
    places = [ROOT / path, *SOURCE.rglob(path.rstrip("/"))]
    definition = re.compile(rf"^(?:def|class) {name}\b" if name else "", re.M)
    return any(p.is_dir() or (p.is_file() and definition.search(p.read_text(encoding="utf-8"))) for p in places)


def leads_somewhere(reference: str) -> bool:
    """Whether ``package.module.name`` is a file or folder of the source and, after it, names that occur in the file."""
    path, *names = SOURCE, *reference.split(".")
    while names and (path / names[0]).is_dir():
        path /= names.pop(0)
    if not names:
        return True
    file = path / f"{names[0]}.py" if (path / f"{names[0]}.py").is_file() else path / "__init__.py"
    text = file.read_text(encoding="utf-8")
    later = names[1:] if file.stem == names[0] else names
    return all(re.search(rf"^ *(?:def |class |self\.)?{name}\b", text, re.M) for name in later)


def test_files_and_names_of_the_architecture_exist():
    named = named_files(ARCHITECTURE.read_text(encoding="utf-8"))
    assert {("run/worker.py", "run_stage"), ("run/stages/", "")} <= named
    assert [name for name in sorted(named) if not is_file_with(*name)] == []


def test_references_in_docstrings_lead_somewhere():
    files = {file.relative_to(SOURCE): file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")}
    references = [(str(file), name) for file, text in files.items() for name in REFERENCE.findall(text)]
    assert len(references) > 50
    assert [found for found in references if not leads_somewhere(found[1])] == []


def test_a_wrong_file_or_name_would_be_found():
    assert not is_file_with("run/plan.py", "") and not is_file_with("rooms/", "")
    assert not is_file_with("run/worker.py", "run_stages")
    assert leads_somewhere("run.worker.run_stage") and not leads_somewhere("run.worker.run_stages")
    assert not leads_somewhere("run.plan") and not leads_somewhere("model.losses.linear_distilled")
