"""Output that a grammar describes: JSON of a schema, a regular expression, a context-free grammar.

The grammars are llguidance's: it keeps a parser per sample and tells after each token which may come next. The
tokens are taken as bytes, so a token may end inside a word of the grammar or inside a character.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from herdlm.tokens.tokenizer import Tokenizer

# Between the parts of JSON: nothing, a space, or a new line with its indent. Unlimited space would be legal JSON, and
# a model unsure of what comes next could write nothing else.
JSON_SPACE = r"( |\n {0,40})?"


@dataclass(frozen=True, slots=True)
class Grammar:
    """A set of texts. Made by the class methods, which check it; ``text`` is its form in llguidance."""

    text: str

    @classmethod
    def json_schema(cls, schema: dict[str, Any] | str) -> Grammar:
        """JSON values that ``schema`` allows, the keys of objects in the schema's order.

        Raises:
            InputError: it is no JSON schema, allows nothing, or uses a keyword that cannot be enforced.
        """
        text = schema if isinstance(schema, str) else json.dumps(schema)
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise InputError(f"the JSON schema is not JSON: {error}", "Give a JSON object") from error
        if not isinstance(parsed, dict):
            raise InputError(f"the JSON schema is {_shortened(text)}, no JSON object", "Give a JSON object")
        if "x-guidance" in parsed:  # would let a schema turn its own enforcement off
            raise InputError(
                "the JSON schema holds x-guidance", "Drop it: the options of the grammar library are fixed"
            )
        options: Any = {"whitespace_flexible": True, "whitespace_pattern": JSON_SPACE, "lenient": False}
        return cls._checked(_matcher().grammar_from_json_schema(text, overrides=options), "JSON schema")

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, text: str) -> Grammar:
        """Texts that match a regular expression as a whole; without look-around and back-references.

        Raises:
            InputError: the expression cannot be read.
        """
        return cls._checked(_matcher().grammar_from_regex(text), "regular expression")

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Texts of a context-free grammar in Lark's notation, from its rule ``start``.

        Raises:
            InputError: the grammar cannot be read.
        """
        return cls._checked(_matcher().grammar_from_lark(text), "grammar")

    @classmethod
    def _checked(cls, text: str, kind: str) -> Grammar:
        failed, messages = _matcher().validate_grammar_with_warnings(text)
        if failed:
            raise InputError(f"the {kind} cannot be used: {_shortened(' '.join(messages))}", f"Change the {kind}")
        return cls(text)


class Matchers:
    """Makes matchers for a tokenizer and a model of ``vocab_size`` entries, which may be more than the tokenizer's."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        _matcher()
        from llguidance import LLTokenizer, TokenizerWrapper

        self.vocab_size = vocab_size
        self._tokens: LLTokenizer = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, vocab_size)))
        self.end: int = self._tokens.eos_token  # stands for "the text may end here" in masks

    def start(self, grammar: Grammar, stop_tokens: Sequence[int]) -> Matcher:
        """A matcher at the beginning of a text.

        Raises:
            InputError: the grammar allows no text, or is too large.
        """
        inner = _matcher()(self._tokens, grammar.text, log_level=0)
        matcher = Matcher(self, inner, np.array(stop_tokens, dtype=np.int64))
        matcher.look()
        if matcher.failed or matcher.finished:
            what = _shortened(inner.get_error()) or "it allows no text but the empty one"
            raise InputError(f"the grammar cannot be used: {what}", "Change the grammar")
        return matcher


class Matcher:
    """Where one sample stands in its grammar.

    Attributes:
        allowed: which tokens may come next, [V].
        finished: the text is complete and nothing can follow.
        failed: the library gave up, as on a grammar that grows too large while it is followed.
    """

    def __init__(self, matchers: Matchers, inner: LLMatcher, stop_tokens: NDArray[np.int64]) -> None:
        self._matchers, self._inner = matchers, inner
        self._stop_tokens = stop_tokens[stop_tokens < matchers.vocab_size]
        self.allowed: NDArray[np.bool_] = np.zeros(matchers.vocab_size, dtype=np.bool_)
        self.finished = self.failed = False

    def copy(self) -> Matcher:
        """Another at the same place, which goes its own way."""
        twin = Matcher(self._matchers, self._inner.deep_copy(), self._stop_tokens)
        twin.allowed, twin.finished, twin.failed = self.allowed, self.finished, self.failed
        return twin

    def push(self, token: int) -> None:
        """Go on by a drawn token that is no stop token."""
        if not self._inner.consume_token(token):
            self.failed = True
        else:
            self.look()

    def look(self) -> None:
        """Find what may come next."""
        size = self._matchers.vocab_size
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[:size].astype(np.bool_)
        complete = bool(allowed[self._matchers.end])
        allowed[self._matchers.end] = False
        allowed[self._stop_tokens] = False
        goes_on = bool(allowed.any())
        self.failed = self._inner.is_error() or not (goes_on or complete)
        self.finished = complete and not goes_on
        allowed[self._stop_tokens] = complete
        self.allowed = allowed


class _Vocabulary:
    """The tokenizer as llguidance asks for it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        known = range(min(tokenizer.vocab_size, vocab_size))
        self.tokens = [tokenizer.token_bytes(id) for id in known] + [b""] * (vocab_size - len(known))
        # What has no bytes is no part of a text. One of these stands for the end; a tokenizer without any lends its
        # last entry, which texts then do without.
        self.special_token_ids = [id for id, content in enumerate(self.tokens) if not content]
        self.eos_token_id = self.special_token_ids[0] if self.special_token_ids else vocab_size - 1
        self.bos_token_id = None
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


def _matcher() -> type[LLMatcher]:
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise InputError("output by a grammar needs llguidance", "Install it: pip install 'herdlm[grammar]'") from error
    return LLMatcher


def _shortened(text: str, length: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]}..."
