"""The generators by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from herdlm.align.synth.config import SynthConfig
from herdlm.align.synth.setting import Made, Setting
from herdlm.base.errors import InputError
from herdlm.base.own_parts import code_hash, load_part

GENERATORS = {
    "constraints": "herdlm.align.synth.constraints.generate:generate",
    "word_problems": "herdlm.align.synth.word_problems.generate:generate",
    "code": "herdlm.align.synth.code.generate:generate",
    "tools": "herdlm.align.synth.tools.generate:generate",
    "long_documents": "herdlm.align.synth.long_documents.generate:generate",
    "multilingual": "herdlm.align.synth.multilingual.generate:generate",
    "factuality": "herdlm.align.synth.factuality.generate:generate",
    "steerability": "herdlm.align.synth.steerability.generate:generate",
    "self_instruct": "herdlm.align.synth.self_instruct.generate:generate",
    "safety": "herdlm.align.synth.safety.generate:generate",
}
"""The function of each generator; its options are the section of :class:`SynthConfig` with the same name."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator of a recipe.

    Attributes:
        make: the function that makes records.
        options: its section of the recipe.
        code: a hash of the user's own code; "" for built-in generators.
    """

    name: str
    make: Callable[[Setting, Any], Iterator[Made]]
    options: BaseModel
    code: str = ""


def generators_of(config: SynthConfig) -> list[Generator]:
    """The generators that a recipe names, in a fixed order, the user's own ones last.

    Raises:
        InputError: one of the user's own cannot be loaded, or has the name of a built-in one.
    """
    found = []
    for name, reference in GENERATORS.items():
        options = getattr(config, name)
        if options is not None:
            found.append(Generator(name, load_part(reference, name), options))
    for name, own in config.own.items():
        if name in GENERATORS or not name.isidentifier():
            raise InputError(f"own.{name}: a generator cannot have this name", "Use letters, digits and underscores")
        part = load_part(own.make, f"own.{name}.make")
        found.append(Generator(name, part, own, code_hash(part) or ""))
    return found
