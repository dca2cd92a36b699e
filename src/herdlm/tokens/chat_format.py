"""How a model folder writes dialogs as tokens: one object for training, sampling and serving."""

from __future__ import annotations

import datetime
import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.chat import Message, Rendered
from herdlm.tokens.chat_template import (
    BEGIN_ANSWER,
    END_ANSWER,
    TEMPLATES,
    ChatTemplate,
    llama3_template,
    own_template,
    read_templates,
)
from herdlm.tokens.tokenizer import END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN, Tokenizer, not_encodable, read_settings
from herdlm.tokens.tools import without_tools

# A special token's text inside a message travels through the template as its number between these two.
BEGIN_TEXT, END_TEXT = "\ufdd2", "\ufdd3"
NONCHARACTERS = (BEGIN_ANSWER, END_ANSWER, BEGIN_TEXT, END_TEXT)
TURN_ENDS = (END_OF_TURN, END_OF_MESSAGE, END_OF_TEXT)
PROBE = "\ufdef"  # stands for an answer, to find what follows it


@dataclass(frozen=True, slots=True)
class _Text:
    """A rendered dialog, with the ranges of characters that the assistant writes."""

    text: str
    answers: list[tuple[int, int]]


class ChatFormat:
    """A folder's tokenizer and chat template.

    Text in a message never becomes a special token, whatever it looks like. A part of a message's content of the form
    ``{"type": "special", "text": "<think>"}`` does.

    Args:
        templates: chat templates by name: "default", and "tool_use" where there are tools.
        stop_tokens: ids that end an answer by the folder's settings.
        where: the folder, for errors.

    Attributes:
        stop_tokens: ids that end an answer: those, and what the template puts after one.
        pad: id that fills rows; its targets weigh nothing.
        begin: ids before a plain text.
        template_text: the chat template; None without one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        templates: dict[str, str],
        *,
        stop_tokens: Sequence[int] = (),
        where: str = "the tokenizer",
    ) -> None:
        self.tokenizer, self.where = tokenizer, where
        self.pad, self.begin = tokenizer.pad, tokenizer.begin
        self.templates = {
            name: ChatTemplate(text, f"{where}, template {name}")
            for name, text in templates.items()
            if name in ("default", "tool_use")
        }
        self.template_text = templates.get("default")
        self._numbers = {text: number for number, text in enumerate((*NONCHARACTERS, *tokenizer.special_tokens))}
        self._texts = list(self._numbers)
        self._look_alike = re.compile("|".join(map(re.escape, sorted(self._numbers, key=len, reverse=True))))
        eos = () if tokenizer.eos is None else (tokenizer.eos,)
        self.stop_tokens = tuple(dict.fromkeys([*stop_tokens, *eos, *self._turn_ends()]))

    @classmethod
    def load(cls, folder: Path, template: str | None = None) -> ChatFormat:
        """Load the format of a model or tokenizer folder.

        Args:
            template: the text of a chat template, or the name of one of ours, in place of the folder's.

        Raises:
            InputError: the folder holds no tokenizer, or one of a kind that cannot be represented.
            DamagedError: a file there cannot be read.
        """
        folder = Path(folder)
        tokenizer, settings = Tokenizer.load(folder), read_settings(folder)
        templates = read_templates(folder, settings)
        if template is not None:
            templates = {"default": own_template(template) if template in TEMPLATES else template}
        elif not templates:
            fitting = [name for name, token in TEMPLATES.items() if token in tokenizer.special_tokens]
            templates = {"default": own_template(fitting[0])} if fitting else {}
        return cls(tokenizer, templates, stop_tokens=_stop_tokens(folder), where=str(folder))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatFormat:
        """The format of a tokenizer with Llama 3's special tokens, such as those that herdlm trains."""
        return cls(tokenizer, {"default": llama3_template(tokenizer.leading_space)})

    def freeze(self, today: datetime.datetime) -> None:
        """Let templates that write the date write this one."""
        for template in self.templates.values():
            template.freeze(today)

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] | None = None, first: int = 0
    ) -> Rendered:
        """A whole dialog as tokens, with the weight of each as a target of training.

        Targets are what the assistant writes in messages from number ``first`` on, each with its message's weight.

        Raises:
            InputError: the template refuses the dialog, or does not keep what stands before an answer, so that a
                trained model would not see what it sees when it is served.
        """
        made = self._answers(messages, tools)
        own = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        weights_of = [float(messages[i].get("weight", 1.0)) if i >= first else 0.0 for i in own]
        tokens, spans, answers = self._encode(made)
        weights, formatting = [0.0] * len(tokens), [True] * len(tokens)
        at = 0
        for (begin, end), weight in zip(answers, weights_of, strict=True):
            while at < len(tokens) and spans[at][0] < begin:
                at += 1
            while at < len(tokens) and spans[at][0] < end:
                special = self.tokenizer.is_special(tokens[at])
                if spans[at][1] > end and not special:  # a special token may take the space after it along
                    break
                weights[at], formatting[at] = weight, special
                at += 1
        return Rendered(tokens, weights, formatting)

    def prompt(self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] | None = None) -> list[int]:
        """A dialog as tokens, up to where the assistant's next message begins.

        Raises:
            InputError: the template refuses the dialog.
        """
        text = self._text(messages, tools, prompt=True)
        return self._encode(_without_marks(text))[0]

    @property
    def takes_tools(self) -> bool:
        """Whether the template describes tools and calls itself."""
        return any(template.takes_tools for template in self.templates.values())

    def _text(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, *, prompt: bool) -> str:
        """What the template writes, with marks around answers."""
        template = self.templates.get("tool_use") if tools else None
        template = template or self.templates.get("default")
        if template is None:
            raise InputError(
                f"{self.where} has no chat template",
                "Use a chat model, or give a template: a file chat_template.jinja in the folder",
            )
        if not template.takes_tools:
            messages, tools = without_tools(messages, tools or ())
        return template.render(
            messages=[self._prepared(message) for message in messages],
            tools=self._protected(list(tools or ())) or None,
            documents=None,
            add_generation_prompt=prompt,
            **self.tokenizer.named,
        )

    def _answers(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> _Text:
        """A rendered dialog with the range of every assistant's message: by the template's marks, else by prefixes."""
        made = _without_marks(self._text(messages, tools, prompt=False))
        own = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if len(made.answers) == len(own):
            return made
        answers = []
        for i in own:
            before = _without_marks(self._text(messages[:i], tools, prompt=True)).text
            after = _without_marks(self._text(messages[: i + 1], tools, prompt=False)).text
            end = self._shared(after, made.text)
            if not made.text.startswith(before) or len(before) >= end or not self._closes(after[end:]):
                raise InputError(
                    f"the chat template of {self.where} rewrites what stands before message {i}, so that training on "
                    "it would not be what the model sees when it answers",
                    "Train on dialogs that end there, or give a template with {% generation %} marks",
                )
            answers.append((len(before), len(before) + self._answer_length(made.text[len(before) : end])))
        return _Text(made.text, answers)

    def _shared(self, text: str, other: str) -> int:
        """How many characters both texts begin with, up to a whole special token."""
        length = next(
            (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other))
        )
        inside = (m.start() for m in self._look_alike.finditer(other) if m.start() < length < m.end())
        return next(inside, length)

    def _closes(self, text: str) -> bool:
        """Whether ``text`` is what a template writes at the end of a dialog: special tokens alone, if anything."""
        return not self._look_alike.sub("", text).strip()

    def _answer_length(self, text: str) -> int:
        """The length of what the model writes at the start of ``text``: up to the first token that ends an answer."""
        special = self.tokenizer.special_tokens
        for match in self._look_alike.finditer(text):
            if special.get(match[0]) in self.stop_tokens:
                return match.end()
        return len(text.rstrip())

    def _turn_ends(self) -> list[int]:
        """The known ends of a turn, and the special token that the template puts after an answer."""
        special = self.tokenizer.special_tokens
        ends = [special[name] for name in TURN_ENDS if name in special]
        if "default" in self.templates:
            try:
                dialog: list[Message] = [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": PROBE},
                    {"role": "user", "content": "b"},
                ]
                after = _without_marks(self._text(dialog, None, prompt=False)).text.partition(PROBE)[2].lstrip()
            except InputError:
                return ends
            if (found := self._look_alike.match(after)) and found[0] in special:
                ends.append(special[found[0]])
        return ends

    def _prepared(self, message: Message) -> dict[str, Any]:
        """A message as templates expect it: one string of content, tables of arguments, and no special tokens."""
        made: dict[str, Any] = {key: value for key, value in message.items() if key not in ("weight", "content")}
        if calls := made.get("tool_calls"):
            made["tool_calls"] = [_with_table(call) for call in calls]
        made = self._protected(made)
        content: Any = message.get("content")
        if isinstance(content, list):
            content = "".join(
                part["text"] if part["type"] == "special" else self._protected(part["text"]) for part in content
            )
        else:
            content = self._protected(content)
        return made | {"content": content}

    def _protected(self, value: Any) -> Any:
        """``value`` with every text that looks like a special token replaced by its number, deep inside."""
        if isinstance(value, str):
            if not self._look_alike.search(value):
                return value
            return self._look_alike.sub(lambda m: f"{BEGIN_TEXT}{self._numbers[m[0]]}{END_TEXT}", value)
        if isinstance(value, list):
            return [self._protected(item) for item in value]
        if isinstance(value, dict):
            return {self._protected(key): self._protected(item) for key, item in value.items()}
        return value

    def _encode(self, made: _Text) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, int]]]:
        """Token ids of rendered text, each token's range of characters, and the answers' ranges in the same count.

        Special tokens are looked for under names that nobody can guess; whatever a message holds stays text.
        """
        renamed, pattern, backend, original = self._renamed
        pieces: list[str] = []
        ends, shifts = [0], [0]  # how far positions after each replacement move
        at = 0
        for match in pattern.finditer(made.text):
            new = self._texts[int(match["number"])] if match["number"] else renamed.get(match[0], match[0])
            pieces += [made.text[at : match.start()], new]
            at = match.end()
            ends.append(at)
            shifts.append(shifts[-1] + len(new) - len(match[0]))
        pieces.append(made.text[at:])
        try:
            encoding = backend.encode("".join(pieces), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            raise not_encodable("".join(pieces)) from error
        answers = [tuple(place + shifts[bisect_right(ends, place) - 1] for place in answer) for answer in made.answers]
        return [original.get(id, id) for id in encoding.ids], encoding.offsets, answers  # type: ignore[return-value]

    @cached_property
    def _renamed(self) -> tuple[dict[str, str], re.Pattern[str], Backend, dict[int, int]]:
        """A backend whose special tokens have secret names: the names, what to replace, it, and its ids' originals."""
        state = json.loads(self.tokenizer.backend.to_str())
        state |= {"post_processor": None, "truncation": None, "padding": None}
        secret, special = secrets.token_hex(8), self.tokenizer.special_tokens
        renamed = {content: f"\ufdd4{secret}{id}\ufdd5" for content, id in special.items()}
        others = []
        for token in state["added_tokens"]:
            if token["content"] in renamed:
                token["content"] = renamed[token["content"]]
            else:
                others.append(token["content"])
        backend = Backend.from_str(json.dumps(state))
        listed = {token["content"] for token in state["added_tokens"]}
        for content in special:  # named by the folder's settings, but not among the tokenizer's added tokens
            if renamed[content] not in listed:
                backend.add_special_tokens([renamed[content]])
        ids = {content: backend.token_to_id(name) for content, name in renamed.items()}
        original = {id: special[content] for content, id in ids.items() if id is not None}
        names = sorted([*renamed, *others], key=len, reverse=True)
        pattern = re.compile("|".join([f"{BEGIN_TEXT}(?P<number>\\d+){END_TEXT}", *map(re.escape, names)]))
        return renamed, pattern, backend, original


def generation_settings(folder: Path, format: ChatFormat | None = None) -> dict[str, Any]:
    """The content of generation_config.json for a model with the tokenizer in ``folder``.

    The folder's own settings stay. Tools that generate stop at ``eos_token_id``, which lists every id that ends an
    answer, and fill batches with ``pad_token_id``.

    Args:
        format: of the model, where it is not the folder's own.

    Raises:
        InputError, DamagedError: see :meth:`ChatFormat.load`.
    """
    path, format = Path(folder) / "generation_config.json", format or ChatFormat.load(folder)
    settings = _read_object(path) if path.is_file() else {}
    ids = {"bos_token_id": format.tokenizer.bos, "eos_token_id": list(format.stop_tokens), "pad_token_id": format.pad}
    return settings | {key: value for key, value in ids.items() if value not in (None, [])}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is not valid JSON: {error}", "Restore it from its source") from error
    if not isinstance(settings, dict):
        raise DamagedError(f"{path} is not a JSON object", "Restore it from its source")
    return settings


def _with_table(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments are a table, as templates expect them, where its text is that of one."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def _without_marks(text: str) -> _Text:
    """The text without the marks around answers, and the ranges they enclosed."""
    pieces, answers, length = [], list[tuple[int, int]](), 0
    for part in re.split(f"({BEGIN_ANSWER}|{END_ANSWER})", text):
        if part == BEGIN_ANSWER:
            answers.append((length, length))
        elif part == END_ANSWER:
            answers[-1] = (answers[-1][0], length)
        else:
            pieces.append(part)
            length += len(part)
    return _Text("".join(pieces), answers)


def _stop_tokens(folder: Path) -> list[int]:
    """The ids that end an answer by the folder's generation_config.json or, without one, its config.json.

    Raises:
        InputError: one of them is not a token's number.
        DamagedError: the file cannot be read.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if not path.is_file():
            continue
        stated = _read_object(path).get("eos_token_id")
        listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
        for id in listed:
            if not isinstance(id, int) or id < 0:
                raise InputError(f"{path}: eos_token_id {id!r} is not the number of a token", "Correct it")
        if listed:
            return listed
    return []
