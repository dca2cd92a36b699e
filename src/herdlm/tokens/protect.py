"""Messages through a chat template to tokens, so that only what the template writes becomes special tokens."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from herdlm.tokens.chat_template import BEGIN_ANSWER, BEGIN_TEXT, END_ANSWER, END_TEXT
from herdlm.tokens.tokenizer import SHORT, Tokenizer, encoding

MARKS = (BEGIN_ANSWER, END_ANSWER, BEGIN_TEXT, END_TEXT)
Span = tuple[int, int]
WINDOW = 4096  # characters that are searched at once: a search lets no other thread of the interpreter run
LONGEST_NUMBER = 16  # characters of a number between its two signs


def matches(pattern: re.Pattern[str], text: str, longest: int) -> Iterator[re.Match[str]]:
    """The matches of ``pattern.finditer(text)``, where none has more than ``longest`` characters."""
    at = 0
    while at < len(text):
        end = at + WINDOW
        match = pattern.search(text, at, end + longest)
        if match is None or match.start() >= end:
            at = end
        else:
            yield match
            at = match.end()


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a rendered text, each token's range of characters, and the answers' ranges in the same count.

    The range of a special token is that of its name, without spaces beside it that it may take along.
    """

    tokens: list[int]
    spans: list[Span]
    answers: list[Span]


class Protection:
    """Replaces texts that look like special tokens by numbers, and puts them back after the template has run.

    Attributes:
        look_alike: matches the special tokens in what a template writes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        special = tokenizer.special_tokens
        self._texts = [*MARKS, *special]
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self.look_alike = re.compile("|".join(map(re.escape, sorted(self._numbers, key=len, reverse=True))))
        self._starts = {text[:length] for text in special for length in range(1, len(text))}
        self._ends = {text[length:] for text in special for length in range(1, len(text))}
        self._longest = max(map(len, special), default=0)

    def protect(self, value: Any) -> Any:
        """``value`` with every text that looks like a special token, or like part of one, replaced, deep inside."""
        if isinstance(value, str):
            return self._edges(self._numbered(value))
        if isinstance(value, list):
            return [self.protect(item) for item in value]
        if isinstance(value, dict):
            return {self.protect(key): self.protect(item) for key, item in value.items()}
        return value

    def encode(self, text: str, answers: Sequence[Span]) -> Encoded:
        """Tokens of a rendered text. Special tokens are looked for under names that nobody can guess.

        Raises:
            InputError: the text has a lone surrogate.
        """
        named, moved, places = self._with_names(text, answers, frozenset())
        ids, spans = self._tokens(named)
        # A special token that is normalized may be one in some places only; elsewhere it is text.
        read = self._read(ids, spans, places)
        if unread := {start for start, _ in places if start not in read}:
            named, moved, places = self._with_names(text, answers, unread)
            ids, spans = self._tokens(named)
            read = self._read(ids, spans, places)
        ranges = dict(places)
        for start, token in read.items():
            spans[token] = ranges[start]
        return Encoded(ids, spans, moved)

    def _numbered(self, text: str) -> str:
        pieces, at = [], 0
        for match in matches(self.look_alike, text, max(map(len, self._texts))):
            pieces += [text[at : match.start()], self._number(match[0])]
            at = match.end()
        return "".join([*pieces, text[at:]]) if at else text

    def _number(self, text: str) -> str:
        number = self._numbers[text] if text in self._numbers else len(self._texts) + ord(text)
        return f"{BEGIN_TEXT}{number}{END_TEXT}"

    def _text(self, number: int) -> str:
        return self._texts[number] if number < len(self._texts) else chr(number - len(self._texts))

    def _edges(self, text: str) -> str:
        """``text`` whose edge cannot be completed to a special token by what stands next to it."""
        inner = text.strip()
        if any(inner[-length:] in self._starts for length in range(1, min(self._longest, len(inner) + 1))):
            end = len(text.rstrip())
            text = text[: end - 1] + self._number(text[end - 1]) + text[end:]
        if any(inner[:length] in self._ends for length in range(1, min(self._longest, len(inner) + 1))):
            begin = len(text) - len(text.lstrip())
            if text[begin] != BEGIN_TEXT:
                text = text[:begin] + self._number(text[begin]) + text[begin + 1 :]
        return text

    def _with_names(
        self, text: str, answers: Sequence[Span], unread: AbstractSet[int]
    ) -> tuple[str, list[Span], list[tuple[int, Span]]]:
        """The text with numbers put back and special tokens renamed, except those that start at ``unread``.

        Returns:
            The new text, the answers' ranges in it, and of each renamed token the old start and the new range.
        """
        names, pattern = self.tokenizer.renamed.names, self._to_rename
        pieces: list[str] = []
        ends, shifts = [0], [0]  # how far positions after each replacement move
        places: list[tuple[int, Span]] = []
        at = length = 0
        longest = max([LONGEST_NUMBER, *map(len, self._texts), *map(len, self.tokenizer.renamed.others)])
        for match in matches(pattern, text, longest):
            new = match[0]
            length += match.start() - at
            if match["number"]:
                new = self._text(int(match["number"]))
            elif new in names and match.start() not in unread:
                new = names[new]
                places.append((match.start(), (length, length + len(new))))
            pieces += [text[at : match.start()], new]
            at, length = match.end(), length + len(new)
            ends.append(at)
            shifts.append(length - at)
        pieces.append(text[at:])
        moved = [tuple(place + shifts[bisect_right(ends, place) - 1] for place in answer) for answer in answers]
        return "".join(pieces), moved, places  # type: ignore[return-value]

    def _tokens(self, text: str) -> tuple[list[int], list[Span]]:
        backend = self.tokenizer.renamed.backend
        with encoding([text]):
            if len(text) > SHORT:  # a batch of one: only batches let other threads of the interpreter run
                (encoded,) = backend.encode_batch([text], add_special_tokens=False)
            else:
                encoded = backend.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def _read(self, ids: Sequence[int], spans: Sequence[Span], places: Sequence[tuple[int, Span]]) -> dict[int, int]:
        """The places in ``ids`` of those renamed tokens that the tokenizer read as such, by their old starts."""
        special = [place for place, id in enumerate(ids) if self.tokenizer.is_special(id)]
        ends = [spans[place][1] for place in special]
        read = {}
        for start, (begin, end) in places:
            at = bisect_left(ends, end)
            if at < len(special) and spans[special[at]][0] <= begin:
                read[start] = special[at]
        return read

    @cached_property
    def _to_rename(self) -> re.Pattern[str]:
        """Matches what is replaced or must not be cut: numbers of texts, and all added tokens."""
        names = sorted([*self.tokenizer.renamed.names, *self.tokenizer.renamed.others], key=len, reverse=True)
        return re.compile("|".join([f"{BEGIN_TEXT}(?P<number>\\d+){END_TEXT}", *map(re.escape, names)]))
