"""How a model folder writes dialogs as tokens: one object for training, sampling and serving."""

from __future__ import annotations

import datetime
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.json_files import read_object
from herdlm.tokens.answers import Marked, behind, without_marks
from herdlm.tokens.chat import Message, Rendered, text_of
from herdlm.tokens.chat_template import TEMPLATES, ChatTemplate, llama3_template, own_template, read_templates
from herdlm.tokens.protect import Protection
from herdlm.tokens.stop_tokens import stated_stop_tokens
from herdlm.tokens.tokenizer import END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN, Tokenizer
from herdlm.tokens.tokenizer_files import RESTORE, read_settings
from herdlm.tokens.tools import without_tools

TURN_ENDS = (END_OF_TURN, END_OF_MESSAGE, END_OF_TEXT)
REASONING = (
    "reasoning_content",
    "thinking",
    "reasoning",
)  # names of a message's thoughts; templates read the first two
PROBE = "\ufdef"  # stands for an answer, to find what follows it
OPEN = f"{PROBE} "  # stands behind an answer that is gone on with; without its space if the template trims
GIVEN = ("messages", "tools", "add_generation_prompt")  # what a template gets from a dialog
Tools = Sequence[dict[str, Any]] | None
Arguments = Mapping[str, Any] | None


class RewrittenError(InputError):
    """A template does not keep what stands before an answer to be trained on when the dialog goes on."""


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
        self._protection = Protection(tokenizer)
        self._parts = {*tokenizer.special_tokens, *(token.content for token in tokenizer.added.values()), OPEN}
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
        return cls(tokenizer, templates, stop_tokens=stated_stop_tokens(folder), where=str(folder))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatFormat:
        """The format of a tokenizer with Llama 3's special tokens, such as those that herdlm trains."""
        return cls(tokenizer, {"default": llama3_template(tokenizer.leading_space)})

    def freeze(self, today: datetime.datetime) -> None:
        """Let templates that write the date write this one."""
        for template in self.templates.values():
            template.freeze(today)

    def render(
        self, messages: Sequence[Message], *, tools: Tools = None, arguments: Arguments = None, first: int = 0
    ) -> Rendered:
        """A whole dialog as tokens, with the weight of each as a target of training.

        Targets are what the assistant writes in messages from number ``first`` on, each with its message's weight.
        Without a template's marks, only what stands before these must be what the template writes in a prompt.

        Args:
            arguments: see :meth:`prompt`.

        Raises:
            InputError: the template refuses the dialog.
            RewrittenError: it does not keep what stands before an answer, so that a trained model would not see what it
                sees when it is served.
        """
        made, owners = self._answers(messages, tools, arguments, first)
        weights_of = [float(messages[i].get("weight", 1.0)) if i >= first else 0.0 for i in owners]
        encoded = self._protection.encode(made.text, made.answers)
        tokens, spans = encoded.tokens, encoded.spans
        weights, formatting = [0.0] * len(tokens), [True] * len(tokens)
        at = 0
        for (begin, end), weight in zip(encoded.answers, weights_of, strict=True):
            while at < len(tokens) and spans[at][1] <= begin:
                at += 1
            while at < len(tokens) and spans[at][0] < end:
                weights[at], formatting[at] = weight, self.tokenizer.is_special(tokens[at])
                at += 1
        return Rendered(tokens, weights, formatting)

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools = None,
        arguments: Arguments = None,
        continue_final_message: bool = False,
    ) -> list[int]:
        """A dialog as tokens, up to where the assistant's next message begins.

        Args:
            arguments: further variables for the template, such as ``enable_thinking``. Texts in them stay text.
            continue_final_message: end with the content of the last message, which the model is to go on with.

        Raises:
            InputError: the template refuses the dialog, ``arguments`` has a name of what the template gets anyway, or
                the last message has no content to go on with.
        """
        if continue_final_message:
            text = self._begun(messages, tools, arguments)
        else:
            text = self._text(messages, tools, arguments, prompt=True)
        return self._protection.encode(without_marks(text).text, ()).tokens

    def knows(self, name: str) -> bool:
        """Whether the tokenizer has a token that a special part may name."""
        return name in self._parts

    @property
    def takes_tools(self) -> bool:
        """Whether the template describes tools and calls itself."""
        return any(template.takes_tools for template in self.templates.values())

    def _text(self, messages: Sequence[Message], tools: Tools, arguments: Arguments, *, prompt: bool) -> str:
        """What the template writes, with marks around answers."""
        taken = {*GIVEN, *self.tokenizer.named}
        if named := sorted(taken & (arguments or {}).keys()):
            raise InputError(f"{named[0]} is no further argument of a chat template", "Drop it")
        template = self.templates.get("tool_use") if tools else None
        template = template or self.templates.get("default")
        if template is None:
            raise InputError(
                f"{self.where} has no chat template",
                "Use a chat model, or give a template: a file chat_template.jinja in the folder",
            )
        if not template.takes_tools:
            messages, tools = without_tools(messages, tools or (), as_text=not template.takes_calls)
        try:
            variables = {
                "documents": None,
                **self._protection.protect(dict(arguments or {})),
                "messages": [self._prepared(message) for message in messages],
                "tools": self._protection.protect(list(tools or ())) or None,
            }
        except RecursionError:
            raise InputError("messages, tools or arguments are nested too deeply", "Flatten them") from None
        return template.render(**variables, add_generation_prompt=prompt, **self.tokenizer.named)

    def _begun(self, messages: Sequence[Message], tools: Tools, arguments: Arguments) -> str:
        """What the template writes up to the end of the last message's content.

        White space at the end of the content is left out where the template leaves it out.
        """
        content: Any = messages[-1].get("content") if messages else None
        if content is None:
            raise InputError("the last message has no content to go on with", "Give it one, or ask for a new answer")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said = "".join(map(self._part, parts))
        marked: Any = {**messages[-1], "content": [*parts, {"type": "special", "text": OPEN}]}
        text = self._text([*messages[:-1], marked], tools, arguments, prompt=False)
        before, mark, after = text.rpartition(PROBE)
        if not mark or said.strip() not in before:
            raise InputError(
                f"the chat template of {self.where} does not write the last message as it is",
                "Ask for a new answer instead",
            )
        return before if after.startswith(" ") else before.rstrip()

    def _answers(
        self, messages: Sequence[Message], tools: Tools, arguments: Arguments, first: int
    ) -> tuple[Marked, list[int]]:
        """A rendered dialog with the ranges that the assistant writes, and the message of each.

        The template's marks give the ranges. Without marks they are where a dialog grows by a message.
        """
        made = without_marks(self._text(messages, tools, arguments, prompt=False))
        own = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if len(made.answers) == len(own):
            return made, own
        if made.answers and own:  # several marks in a message, or one after the last, as for Phi-3
            lengths = [
                self._shared(
                    without_marks(self._text(messages[: i + 1], tools, arguments, prompt=False)).text, made.text
                )
                for i in own
            ]
            owners = [own[min(bisect_right(lengths, begin), len(own) - 1)] for begin, _ in made.answers]
            return made, owners
        answers = []
        learned = [i for i in own if i >= first and messages[i].get("weight", 1.0)]
        for i in learned:
            before = without_marks(self._text(messages[:i], tools, arguments, prompt=True)).text
            after = without_marks(self._text(messages[: i + 1], tools, arguments, prompt=False)).text
            begin, end = behind(before, made.text), self._shared(after, made.text)
            rest = after[end:]  # some templates always write the next header
            closed = self._closes(rest) or before.endswith(rest)
            if begin is None or not closed or begin > end or (begin == end and _says(messages[i])):
                raise RewrittenError(
                    f"the chat template of {self.where} rewrites what stands before message {i}, so that training on "
                    "it would not be what the model sees when it answers",
                    "Train on dialogs that end there, with a weight of 0 of other answers, or give a template with "
                    "{% generation %} marks",
                )
            answers.append((begin, self._answer_end(made.text, begin, end)))
        return Marked(made.text, answers), learned

    def _shared(self, text: str, other: str) -> int:
        """How many characters both texts begin with, up to a whole special token."""
        length = next(
            (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other))
        )
        inside = (m.start() for m in self._protection.look_alike.finditer(other) if m.start() < length < m.end())
        return next(inside, length)

    def _closes(self, text: str) -> bool:
        """Whether ``text`` is what a template writes at the end of a dialog: special tokens alone, if anything."""
        return not self._protection.look_alike.sub("", text).strip()

    def _answer_end(self, text: str, begin: int, end: int) -> int:
        """Where what the model writes from ``begin`` on ends: after the first token that ends an answer.

        The message in ``text`` ends at ``end``. For some models, as GLM, the header of the next one ends the answer.
        """
        special = self.tokenizer.special_tokens
        for match in self._protection.look_alike.finditer(text, begin):
            if match.start() >= end and text[end : match.start()].strip():
                break
            if special.get(match[0]) in self.stop_tokens:
                return match.end()
            if match.start() >= end:
                break
        return begin + len(text[begin:end].rstrip())

    def _turn_ends(self) -> list[int]:
        """The known ends of a turn, and the added token that the template puts after an answer."""
        special = self.tokenizer.special_tokens
        ends = [special[name] for name in TURN_ENDS if name in special]
        if "default" in self.templates:
            try:
                dialog: list[Message] = [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": PROBE},
                    {"role": "user", "content": "b"},
                ]
                after = without_marks(self._text(dialog, None, None, prompt=False)).text.partition(PROBE)[2].lstrip()
            except InputError:
                return ends
            added = special | {token.content: id for id, token in self.tokenizer.added.items()}
            if found := max((name for name in added if after.startswith(name)), key=len, default=None):
                ends.append(added[found])
        return ends

    def _prepared(self, message: Message) -> dict[str, Any]:
        """A message as templates expect it: one string of content, tables of arguments, and no special tokens.

        A key without a value is left out, as transformers does; many templates would write "None".
        """
        made: dict[str, Any] = {}
        for key, value in message.items():
            if value is None or key == "weight":
                continue
            if key == "content" and isinstance(value, list):
                made[key] = "".join(map(self._part, value))
            elif key == "tool_calls" and isinstance(value, list):
                made[key] = self._protection.protect([_with_table(call) for call in value])
            else:
                made[key] = self._protection.protect(value)
        if thoughts := [made[name] for name in REASONING if name in made]:
            made = {"thinking": thoughts[0], **made, "reasoning_content": thoughts[0]}
        return made

    def _part(self, part: dict[str, Any]) -> str:
        """A part of a message's content, which is text or the name of a special token."""
        kind, text = part.get("type"), part.get("text")
        if kind not in ("text", "special") or not isinstance(text, str):
            raise InputError(f"a part of a message is of the type {kind!r}, which is not text", "Leave it out")
        if kind == "special" and text not in self._parts:
            raise InputError(f"the tokenizer of {self.where} has no special token {text!r}", "Use one that it has")
        return text if kind == "special" else str(self._protection.protect(text))


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
    settings = read_object(path, RESTORE, encoding="utf-8-sig") if path.is_file() else {}
    ids = {"bos_token_id": format.tokenizer.bos, "eos_token_id": list(format.stop_tokens), "pad_token_id": format.pad}
    return settings | {key: value for key, value in ids.items() if value not in (None, [])}


def _with_table(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments are a table, as templates expect them, where its text is that of one."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def _says(message: Message) -> bool:
    return bool(message.get("tool_calls") or text_of(message).strip())
