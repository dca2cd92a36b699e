"""Finds tool calls in a Llama 3.1 answer as it streams.

There are two forms. JSON at the start of the answer calls custom functions: ``{"name": "f", "parameters": {...}}``,
several in a row or in a list. After ``<|python_tag|>`` comes code for the interpreter, a built-in tool such as
``brave_search.call(query="...")``, or JSON as before. A call to an unknown function is text. Text after calls is
dropped.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

CODE_INTERPRETER = "code_interpreter"
BUILT_IN = ("brave_search", "wolfram_alpha", CODE_INTERPRETER)

HEADER = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>[^"\\]{1,64})"\s*'
    r'(?:,\s*"(?:parameters|arguments)"\s*:\s*(?=\{)|(?P<bare>\}))'
)
MAX_HEADER = 200  # characters; anything longer is not a call
BUILT_IN_CALL = re.compile(r"\s*(?P<name>\w+)\.call\((?P<arguments>.*)\)\s*", re.DOTALL)
ARGUMENT = re.compile(r'\s*(?P<name>\w+)\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|-?[\d.]+|true|false)\s*(?:,|$)', re.DOTALL)


@dataclass(slots=True)
class CallPiece:
    """The start of a call with its id and name, or more of its arguments."""

    index: int
    name: str | None = None
    arguments: str = ""
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")

    def to_delta(self) -> dict[str, Any]:
        """The piece in a stream's delta."""
        if self.name is None:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": self.index, "id": self.id, "type": "function", "function": function}


class State(Enum):
    """The state of the scanner."""

    BEGINNING = 0
    TEXT = 1
    HEADER = 2
    ARGUMENTS = 3
    CLOSING = 4
    BETWEEN = 5
    CODE = 6
    REST = 7


class CallScanner:
    """Splits an answer's text, fed in pieces, into text and calls as soon as they are certain.

    Args:
        names: the functions that may be called.
        parallel: return more than the first call.

    Attributes:
        calls: number of calls found so far.
    """

    def __init__(self, names: frozenset[str], parallel: bool) -> None:
        self.names, self.parallel = names, parallel
        self.calls = 0
        self._state = State.BEGINNING
        self._held = ""
        self._depth = 0
        self._quoted = self._escaped = False

    def begin_code(self) -> None:
        """Note that the answer started with ``<|python_tag|>``."""
        self._state = State.CODE

    def feed(self, text: str, *, final: bool) -> list[str | CallPiece]:
        """Scan more text; set ``final`` with the last piece."""
        self._held += text
        pieces: list[str | CallPiece] = []
        steps = {
            State.BEGINNING: self._beginning,
            State.TEXT: self._text,
            State.HEADER: self._header,
            State.ARGUMENTS: self._arguments,
            State.CLOSING: self._closing,
            State.BETWEEN: self._between,
            State.CODE: self._code,
            State.REST: self._rest,
        }
        while steps[self._state](pieces, final):
            pass
        return pieces

    # Each step returns whether the held text allows another step.

    def _beginning(self, pieces: list[str | CallPiece], final: bool) -> bool:
        start = self._held.lstrip()
        if not start and not final:
            return False
        self._state = State.HEADER if start[:1] in ("{", "[") else State.TEXT
        return True

    def _text(self, pieces: list[str | CallPiece], final: bool) -> bool:
        if self._held:
            pieces.append(self._held)
            self._held = ""
        return False

    def _header(self, pieces: list[str | CallPiece], final: bool) -> bool:
        start = self._held.lstrip()
        match = HEADER.match(start[1:] if start.startswith("[") else start)
        if match and match["name"] in self.names:
            pieces.append(CallPiece(self.calls, match["name"], "{}" if match["bare"] else ""))
            self.calls += 1
            self._held = match.string[match.end() :]
            self._state = State.BETWEEN if match["bare"] else State.ARGUMENTS
            return True
        if match or final or len(start) > MAX_HEADER:
            self._state = State.REST if self.calls else State.TEXT
            return True
        return False

    def _arguments(self, pieces: list[str | CallPiece], final: bool) -> bool:
        end = self._end_of_object()
        piece, self._held = self._held[:end], self._held[end:]
        if piece:
            pieces.append(CallPiece(self.calls - 1, arguments=piece))
        if not self._depth:
            self._state = State.CLOSING
        return not self._depth

    def _end_of_object(self) -> int:
        """The end of the current object in the held text, or the end of the held text."""
        for i, character in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = character == "\\"
                self._quoted = character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    return i + 1
        return len(self._held)

    def _closing(self, pieces: list[str | CallPiece], final: bool) -> bool:
        start = self._held.lstrip()
        if not start:
            return False
        self._state = State.BETWEEN if start[0] == "}" else State.REST
        self._held = start[1:]
        return True

    def _between(self, pieces: list[str | CallPiece], final: bool) -> bool:
        start = self._held.lstrip(" \t\r\n;,")
        if not start:
            return False
        self._held = start
        self._state = State.HEADER if self.parallel and start[0] == "{" else State.REST
        return True

    def _rest(self, pieces: list[str | CallPiece], final: bool) -> bool:
        self._held = ""
        return False

    def _code(self, pieces: list[str | CallPiece], final: bool) -> bool:
        if self._held.lstrip().startswith("{"):
            self._state = State.HEADER
            return True
        if not final:
            return False
        code, self._held = self._held, ""
        call = BUILT_IN_CALL.fullmatch(code)
        arguments = _arguments_of(call["arguments"]) if call else None
        if call and arguments is not None and call["name"] in self.names:
            name = call["name"]
        elif CODE_INTERPRETER in self.names:
            name, arguments = CODE_INTERPRETER, {"code": code}
        else:
            pieces.append(code)
            return False
        pieces.append(CallPiece(self.calls, name, json.dumps(arguments, ensure_ascii=False)))
        self.calls += 1
        return False


def _arguments_of(text: str) -> dict[str, Any] | None:
    """The keyword arguments of a built-in tool's call; None if they cannot be parsed."""
    arguments, at = {}, 0
    while at < len(text):
        match = ARGUMENT.match(text, at)
        if match is None:
            return None
        try:
            arguments[match["name"]] = json.loads(match["value"], strict=False)
        except ValueError:
            return None
        at = match.end()
    return arguments
