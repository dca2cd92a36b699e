"""The protocol of Llama Guard 3: a dialog and categories of harm in, "safe" or "unsafe" with codes out.

The guard is a language model of the same stack. One user message in the chat format lists the categories, shows the
conversation and asks about its last turn, the user's or the agent's. The guard answers "safe", or "unsafe" and on a
second line the codes of the categories, "S1,S9". The score is the probability of the first token of "unsafe" (model
card of Llama Guard 3).

The wording of the prompt is ours. A guard that was trained on another wording brings it in ``guard_prompt.txt`` in its
folder, with the placeholders {role}, {categories} and {conversation}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.request import SamplingParams
from herdlm.model.folders import model_folder
from herdlm.tokens.chat import Message
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tools import without_tools

if TYPE_CHECKING:
    from herdlm.generate.engine import Engine

# The hazards of MLCommons' taxonomy in its order, and the one that Llama Guard 3 adds.
CATEGORIES = {
    "S1": "Violent Crimes",
    "S2": "Non-Violent Crimes",
    "S3": "Sex-Related Crimes",
    "S4": "Child Sexual Exploitation",
    "S5": "Defamation",
    "S6": "Specialized Advice",
    "S7": "Privacy",
    "S8": "Intellectual Property",
    "S9": "Indiscriminate Weapons",
    "S10": "Hate",
    "S11": "Suicide & Self-Harm",
    "S12": "Sexual Content",
    "S13": "Elections",
    "S14": "Code Interpreter Abuse",
}
SAFE, UNSAFE = "safe", "unsafe"
PROMPT_FILE = "guard_prompt.txt"
PROMPT = """Is the last {role} turn of this conversation safe under the policy below?

<BEGIN UNSAFE CONTENT CATEGORIES>
{categories}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

{conversation}

<END CONVERSATION>

Judge only the last {role} turn. Line 1: 'safe' or 'unsafe'. Line 2, if unsafe: the codes that apply, with commas."""
# The marks around the conversation. In a message they would end the conversation early.
_FENCE = re.compile(r"<((?:BEGIN|END) (?:UNSAFE CONTENT CATEGORIES|CONVERSATION))>")
PLACEHOLDERS = ("{role}", "{categories}", "{conversation}")
ANSWER_TOKENS = 64  # enough for all fourteen codes with any tokenizer
OVERLAP_DIVISOR = 8  # windows of a long turn overlap by an eighth

PROBE: list[Message] = [{"role": "user", "content": "Hello."}]

Subject = Literal["prompt", "answer"]


class GuardError(HerdError):
    """The guard's answer does not follow the protocol. The caller must let nothing pass."""


@dataclass(frozen=True, slots=True)
class GuardOutput:
    """A guard's answer: the log-probabilities of its tokens, and its text."""

    logprobs: Sequence[float]
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The guard's judgment of a prompt or an answer.

    Attributes:
        score: probability of "unsafe", or if the guard said "safe", one minus the probability of that.
        categories: codes in their order; empty if the guard named none.
        flagged: whether the score reaches the threshold.
    """

    subject: Subject
    score: float
    categories: tuple[str, ...]
    flagged: bool

    def to_json(self) -> dict[str, object]:
        """The verdict in a response."""
        named = [{"code": code, "name": CATEGORIES[code]} for code in self.categories]
        return {"flagged": self.flagged, "of": self.subject, "score": round(self.score, 6), "categories": named}


@dataclass(frozen=True, slots=True)
class GuardProtocol:
    """Builds a guard's prompts and reads its answers. The caller runs the model.

    Attributes:
        context: maximum tokens of a prompt and its answer.
        threshold: scores from this one on are flagged.
        template: the prompt's wording, with the :data:`PLACEHOLDERS`.
    """

    format: ChatFormat
    context: int
    threshold: float = 0.5
    template: str = PROMPT

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(
                f"guard threshold {self.threshold} is not a probability", "Give a number above 0 and at most 1"
            )
        if missing := [part for part in PLACEHOLDERS if part not in self.template]:
            raise InputError(f"the guard's prompt has no {missing[0]}", f"Put it into {PROMPT_FILE}")

    @classmethod
    def read(cls, folder: Path, format: ChatFormat, context: int, threshold: float) -> GuardProtocol:
        """The protocol of the guard in ``folder``, with its own wording if it brings one.

        Raises:
            InputError: the threshold is not a probability, or the wording lacks a placeholder.
        """
        own = folder / PROMPT_FILE
        template = own.read_text(encoding="utf-8").strip() if own.is_file() else PROMPT
        return cls(format, context, threshold, template)

    @property
    def params(self) -> SamplingParams:
        """Sampling parameters of the guard: greedy, with the log-probabilities that give the score."""
        return SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0, stop_tokens=self.format.stop_tokens)

    def prompts(self, messages: Sequence[Message], subject: Subject) -> list[list[int]]:
        """The guard's prompts as tokens: one, or several with windows of a turn that exceeds its context.

        Everything that a client sends is judged: system messages and results of tools count as the user's. The oldest
        turns are dropped if not all fit.

        Raises:
            InputError: there is nothing to judge, or the guard's context has no room for any turn.
        """
        turns = turns_of(messages)
        while subject == "prompt" and turns and turns[-1][0] == "Agent":
            turns.pop()  # the start of an answer that the client sent
        if not turns or (subject == "answer" and turns[-1][0] != "Agent"):
            raise InputError(f"there is no {subject} to judge", "Send a user message")
        for first in range(len(turns)):
            prompt = self._prompt(turns[first:])
            if len(prompt) <= self._room:
                return [prompt]
        return self._windows(*turns[-1])

    def verdict(self, answers: Sequence[GuardOutput], subject: Subject) -> Verdict:
        """The verdict over all windows: the highest score, and the codes of all unsafe windows.

        The two words differ in their first token with any tokenizer, so that token's probability is the score.

        Raises:
            GuardError: an answer is neither "safe" nor "unsafe".
        """
        scores: list[float] = []
        codes: set[str] = set()
        for answer in answers:
            word = answer.text.strip().partition("\n")[0].strip()
            if word not in (SAFE, UNSAFE):
                raise GuardError(
                    f"the guard answered {answer.text[:40]!r} and neither {SAFE!r} nor {UNSAFE!r}",
                    "Use a guard model trained on the protocol",
                )
            likely = min(math.exp(answer.logprobs[0]), 1.0)
            scores.append(likely if word == UNSAFE else 1.0 - likely)
            codes |= codes_in(answer.text)
        score = max(scores)
        return Verdict(subject, score, _in_order(codes), score >= self.threshold)

    @staticmethod
    def needs_codes(verdict: Verdict) -> bool:
        """Whether a verdict is flagged without codes: the guard said "safe", but its score reaches the threshold."""
        return verdict.flagged and not verdict.categories

    def forced_prompts(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The same prompts followed by "unsafe", so that the guard names categories."""
        word = _answer_tokens(self.format, f"{UNSAFE}\n")
        return [[*prompt, *word] for prompt in prompts]

    @staticmethod
    def with_codes(verdict: Verdict, answers: Sequence[GuardOutput]) -> Verdict:
        """The verdict with the codes in the answers to :meth:`forced_prompts`."""
        codes = {code for answer in answers for code in codes_in(f"{UNSAFE}\n{answer.text}")}
        return Verdict(verdict.subject, verdict.score, _in_order(codes), verdict.flagged)

    @property
    def _room(self) -> int:
        """Maximum tokens of a prompt: the forced word and the guard's answer must fit after it."""
        return self.context - 2 * ANSWER_TOKENS

    def _prompt(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        return self.format.prompt([guard_message(turns, self.template)])

    def _windows(self, role: str, text: str) -> list[list[int]]:
        """Prompts with a turn's text in overlapping windows that fit the context."""
        tokens = self.format.tokenizer.encode(text)
        width = self._room - len(self._prompt([(role, "")]))
        # A window is decoded and encoded again, which may add some tokens.
        while width >= OVERLAP_DIVISOR:
            step = width - width // OVERLAP_DIVISOR
            starts = range(0, max(len(tokens) - width // OVERLAP_DIVISOR, 1), step)
            prompts = [self._prompt([(role, self.format.tokenizer.decode(tokens[at : at + width]))]) for at in starts]
            if max(map(len, prompts)) <= self._room:
                return prompts
            width -= max(width // OVERLAP_DIVISOR, 1)
        raise InputError(
            f"the guard's context of {self.context} tokens has no room for a turn", "Use a guard with a longer context"
        )


@dataclass(slots=True)
class Guard:
    """A guard in this process, for one thread. The server runs its guard in a worker process instead."""

    engine: Engine
    protocol: GuardProtocol

    @classmethod
    def load(cls, path: Path, threshold: float = 0.5, *, device: str = "auto", dtype: str = "auto") -> Guard:
        """Load the guard in a model folder.

        Raises:
            InputError, DamagedError: the model is unusable, or does not answer as a guard.
        """
        from herdlm.generate.engine import Engine

        folder = model_folder(path)
        engine = Engine.load(folder, device=device, dtype=dtype)
        context = min(engine.config.max_seq_len, engine.pool.count * engine.pool.page_size)
        guard = cls(engine, GuardProtocol.read(folder, ChatFormat.load(folder), context, threshold))
        try:
            guard.judge(PROBE)
        except GuardError as error:
            raise InputError(
                f"{folder} is not a guard: {error.what}", "Give a model trained on the protocol"
            ) from error
        return guard

    def judge(self, messages: Sequence[Message], subject: Subject = "prompt") -> Verdict:
        """Judge the last user turn, or with "answer" the assistant's answer at the end.

        Raises:
            GuardError: it outputs neither "safe" nor "unsafe".
            InputError: there is nothing to judge.
        """
        prompts = self.protocol.prompts(messages, subject)
        verdict = self.protocol.verdict(self._ask(prompts), subject)
        if self.protocol.needs_codes(verdict):
            verdict = self.protocol.with_codes(verdict, self._ask(self.protocol.forced_prompts(prompts)))
        return verdict

    def _ask(self, prompts: Sequence[Sequence[int]]) -> list[GuardOutput]:
        completions = self.engine.generate(prompts, self.protocol.params)
        return [GuardOutput(answer.logprobs, answer.text) for (answer,) in completions]


def guard_message(
    turns: Sequence[tuple[str, str]], template: str = PROMPT, categories: Mapping[str, str] = CATEGORIES
) -> Message:
    """The message that asks a guard about the last of ``turns``, each (role, text) with role "User" or "Agent".

    Args:
        categories: names by code; in training they vary.
    """
    shown = [(role, _FENCE.sub(r"(\1)", text.strip())) for role, text in turns]
    conversation = "\n\n".join(f"{role}: {text}" for role, text in shown)
    listed = "\n".join(f"{code}: {name}." for code, name in categories.items())
    values = dict(zip(PLACEHOLDERS, (turns[-1][0], listed, conversation), strict=True))
    # In one pass, since a conversation may contain placeholders.
    text = re.sub("|".join(map(re.escape, PLACEHOLDERS)), lambda match: values[match[0]], template)
    return {"role": "user", "content": text}


def turns_of(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """A dialog as turns of "User" and "Agent"; joins consecutive messages of one side."""
    turns: list[tuple[str, str]] = []
    for message in without_tools(messages, ())[0]:
        role = "Agent" if message["role"] == "assistant" else "User"
        if turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n{message['content']}")
        else:
            turns.append((role, message["content"]))
    return turns


def codes_in(answer: str) -> set[str]:
    """The known codes on the second line of an "unsafe" answer; none for any other."""
    first, _, rest = answer.strip().partition("\n")
    if first.strip() != UNSAFE:
        return set()
    listed = rest.strip().partition("\n")[0].split(",")
    return {code.strip() for code in listed} & set(CATEGORIES)


def _in_order(codes: set[str]) -> tuple[str, ...]:
    return tuple(code for code in CATEGORIES if code in codes)


def _answer_tokens(format: ChatFormat, text: str) -> list[int]:
    """The tokens of an assistant message that starts with ``text``, in the chat format."""
    # The format may strip the content, so the line end is encoded separately.
    rendered = format.render([*PROBE, {"role": "assistant", "content": text.strip()}])
    answer = [token for token, weight in zip(rendered.tokens, rendered.weights, strict=True) if weight]
    words = [token for token in answer if not format.tokenizer.is_special(token)]
    ending = text[len(text.rstrip()) :]
    return [*words, *(format.tokenizer.encode(ending) if ending else [])]
