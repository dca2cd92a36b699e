"""Chat templates: the Jinja of a model folder, run in jinja2's sandbox with what transformers gives to a template.

A template that marks what the assistant writes with ``{% generation %}`` gives the mask of training targets. The marks
are noncharacters of Unicode. Whatever in a message looks like a special token travels as a number between two signs of
a rare script; these are printable, so that Python's and JSON's notation of a value keep them.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_bounded, read_object
from herdlm.tokens.time_limit import TooLongError, time_limit

BEGIN_ANSWER, END_ANSWER = "\ufdd0", "\ufdd1"  # around what the assistant writes
BEGIN_TEXT, END_TEXT = "\U00010a50", "\U00010a51"  # around the number of a text that looks like a special token
TEMPLATE_BYTES = 2**20
RENDER_SECONDS = 20.0
MAX_PRODUCT = 10**7  # characters or entries of a text or list that a template may multiply, and digits of a number
TEMPLATES = {"llama3": "<|start_header_id|>", "chatml": "<|im_start|>"}  # ours, each with a token that it needs


class _Generation(Extension):
    """The block ``{% generation %}``, whose output is put between the marks."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse the block into a call of :meth:`_marked`, with a scope of its own as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return f"{BEGIN_ANSWER}{caller()}{END_ANSWER}"


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which no expression makes a value that fills the memory."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right``."""
        if operator == "*" and max(_size(left) * _number(right), _size(right) * _number(left)) > MAX_PRODUCT:
            raise jinja2.TemplateError("a product is too large")
        if operator == "**" and _number(right) * max(_number(left).bit_length(), 1) > MAX_PRODUCT:
            raise jinja2.TemplateError("a power is too large")
        if operator == "%" and isinstance(left, str) and re.search(r"%[^a-zA-Z%]*(\d{5}|\*)", left):
            raise jinja2.TemplateError("a format is too wide")
        return super().call_binop(context, operator, left, right)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | bytes) else 0


def _number(value: Any) -> int:
    return abs(value) if isinstance(value, int) else 0


class ChatTemplate:
    """A compiled chat template.

    Attributes:
        takes_tools: whether the template reads ``tools``.
        takes_calls: whether the template reads the ``tool_calls`` of messages.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        self._today: Callable[[], datetime.datetime] = datetime.datetime.now
        environment.globals["strftime_now"] = lambda form: self._today().strftime(form)
        try:
            tree = environment.parse(text)
            self.takes_tools = "tools" in meta.find_undeclared_variables(tree)
            self.takes_calls = any(node.value == "tool_calls" for node in tree.find_all(nodes.Const)) or any(
                node.attr == "tool_calls" for node in tree.find_all(nodes.Getattr)
            )
            self._template = environment.from_string(text)
        except (jinja2.TemplateError, SyntaxError, RecursionError, ValueError, OverflowError, MemoryError) as error:
            raise DamagedError(
                f"{where}: the chat template is not valid Jinja: {error}", "Restore it from its source"
            ) from error

    def freeze(self, today: datetime.datetime) -> None:
        """Let ``strftime_now`` give ``today`` from now on, so that a run that resumes renders the same text."""
        self._today = lambda: today

    def render(self, **variables: Any) -> str:
        """The text of a dialog.

        Raises:
            InputError: the template refuses the dialog, or fails on it.
        """
        try:
            with time_limit(RENDER_SECONDS):
                return self._template.render(**variables)
        except TooLongError:
            raise InputError(
                f"{self.where}: the chat template runs for over {RENDER_SECONDS:g} s", "Restore it from its source"
            ) from None
        except Exception as error:  # a template may do anything that Python's values can
            said = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"the chat template refuses the dialog: {said}", "Correct the dialog") from error


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the escapes of HTML that jinja2's own filter makes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return (
        re.sub(f"[^\\x00-\\x7f{BEGIN_TEXT}{END_TEXT}]+", lambda m: json.dumps(m[0])[1:-1], text)
        if ensure_ascii
        else text
    )


def llama3_template(leading_space: bool) -> str:
    """The template of Llama 3.1's format. With ``leading_space``, the contents of messages start with a space."""
    text = own_template("llama3")
    return text.replace("set lead = ''", "set lead = ' '") if leading_space else text


def own_template(name: str) -> str:
    """One of :data:`TEMPLATES`."""
    return files("herdlm.tokens").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")


def read_templates(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The chat templates of a folder by name, of which "default" is used where no other is asked for.

    Newer folders hold ``chat_template.jinja``, older ones a key of tokenizer_config.json: of ``settings``.

    Raises:
        DamagedError: a file cannot be read.
    """
    found: dict[str, str] = {}
    listed = settings.get("chat_template")
    alone = folder / "chat_template.json"
    if listed is None and alone.is_file():
        listed = read_object(alone, "Restore the file from its source", encoding="utf-8-sig").get("chat_template")
        if listed is None:
            raise DamagedError(f"{alone} holds no chat_template", "Restore the file from its source")
    if isinstance(listed, str):
        found["default"] = listed
    elif isinstance(listed, dict):
        found |= {str(name): text for name, text in listed.items() if isinstance(text, str)}
    elif isinstance(listed, list):
        for entry in listed:
            if isinstance(entry, dict) and isinstance(entry.get("template"), str):
                found[str(entry.get("name"))] = entry["template"]
    path = folder / "chat_template.jinja"
    more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    for name, file in [("default", path), *((file.stem, file) for file in more)]:
        if file.is_file():
            try:
                data = read_bounded(file, "Restore the file from its source", most=TEMPLATE_BYTES)
                found[name] = data.decode("utf-8-sig")
            except ValueError as error:
                raise DamagedError(f"{file} is not UTF-8 text", "Restore the file from its source") from error
    return found
