"""Published models by name."""

from __future__ import annotations

import re

from herdlm.base.errors import InputError
from herdlm.plan.job import Shape
from herdlm.plan.memory import PUBLISHED


def shape_named(name: str) -> Shape:
    """The shape of a Llama 3.1 model, such as "llama3.1-405b" or "8b".

    Raises:
        InputError: the name is unknown.
    """
    match = re.fullmatch(r"(?:(?:meta-)?llama-?3(?:\.[013])?-)?(8b|70b|405b)(?:-instruct)?", name.lower())
    if match is None:
        raise InputError(
            f"the model {name!r} is unknown",
            "Known are llama3.1-8b, llama3.1-70b and llama3.1-405b; give other shapes by --layers, --hidden, --ffn, "
            "--heads, --kv-heads and --vocab, or a recipe",
        )
    return Shape.of(PUBLISHED[match[1].upper()])
