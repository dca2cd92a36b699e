"""Recipe files: renamed keys are refused with the key that replaced them."""

from typing import ClassVar

import pytest
from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section, parse


class Shape(Section):
    renamed: ClassVar = {"width": "dim", "steps": "train.steps"}

    dim: int


class Herd(Section):
    models: dict[str, Shape] = Field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    first: Shape | None = Shape(dim=1)
    frozen: bool = True


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"models": {"small": {"width": 3}}},  # before the missing key that it explains
            "herd.toml: key models.small.width was renamed to models.small.dim (and 1 more). "
            "Write models.small.dim in its place",
        ),
        (
            {"models": {"small": {"dim": 3, "steps": 4}}},
            "herd.toml: key models.small.steps was renamed to train.steps. Write train.steps in its place",
        ),
        (
            {"shapes": [{"dim": 1}, {"dim": 2, "width": 2}]},
            "herd.toml: key shapes.1.width was renamed to shapes.1.dim. Write shapes.1.dim in its place",
        ),
        (
            {"width": 3},
            "herd.toml: unknown key width. Allowed here: first, frozen, models, shapes",
        ),  # renamed elsewhere only
    ],
)
def test_a_renamed_key_is_refused_with_the_new_one(tables, message):
    with pytest.raises(InputError) as caught:
        parse(Herd, tables, "herd.toml")
    assert str(caught.value) == message


def test_false_unsets_what_is_inherited_and_stays_false_where_it_is_a_value():
    herd = parse(Herd, {"first": False, "shapes": False, "frozen": False}, "herd.toml")
    assert (herd.first, herd.shapes, herd.frozen) == (None, (), False)
    with pytest.raises(InputError, match="key models = False: input should be a table"):
        parse(Herd, {"models": False}, "herd.toml")


def test_a_rename_leads_to_a_key_that_exists():
    with pytest.raises(AssertionError, match="which is no key"):
        type("Wrong", (Section,), {"renamed": {"old": "new"}})
    with pytest.raises(AssertionError, match="yet still a key"):
        type("Wrong", (Section,), {"renamed": {"old": "a.b"}, "__annotations__": {"old": int}})
