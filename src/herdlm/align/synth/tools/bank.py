"""The tools of our bank: how they are described, what people ask of them, and how their results are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth.texts import table
from herdlm.align.synth.tools import functions


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool.

    Attributes:
        function: its name in :mod:`herdlm.align.synth.tools.functions`.
        topic: tools of one topic are never each other's wrong choices.
        names: what it may be called in a definition.
        about: wordings of its description.
        parameters: type and description of each.
        asks: requests; ``{name}`` stands for an argument as it is said.
        says: how the result is told; ``{result}`` is the result.
        optional: parameters that may be left out, and what they are then.
    """

    function: str
    topic: str
    names: Sequence[str]
    about: Sequence[str]
    parameters: Mapping[str, tuple[str, str]]
    asks: Sequence[str]
    says: Sequence[str]
    optional: Mapping[str, Any] = field(default_factory=dict)

    def definition(self, name: str, about: str) -> dict[str, Any]:
        """Its definition in OpenAI's form."""
        properties = {key: _schema(kind) | {"description": text} for key, (kind, text) in self.parameters.items()}
        required = [key for key in self.parameters if key not in self.optional]
        described = {"type": "object", "properties": properties, "required": required}
        return {"type": "function", "function": {"name": name, "description": about, "parameters": described}}


def _schema(kind: str) -> dict[str, Any]:
    word, _, rest = kind.partition(" ")
    if word == "enum":
        return {"type": "string", "enum": list(getattr(functions, rest))}
    return {"type": "array", "items": {"type": rest.removeprefix("of ")}} if word == "array" else {"type": kind}


TOOLS = tuple(Tool(**each) for each in table("tools/bank.toml")["tools"])
