"""Output that follows a grammar: a JSON schema, a regular expression, or a context-free grammar.

llguidance keeps a parser per sample, which computes after each token which tokens may come next. It works on bytes, so
a token may end inside a word of the grammar or inside a character.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    from herdlm.tokens.tokenizer import Tokenizer

MAX_CHARS = 200_000  # of a schema, expression or grammar
FUEL = 1_000_000  # steps of the library in compiling a grammar's words
KEPT = 32  # compiled grammars

# Between the parts of JSON: nothing, a space, or a new line with its indent. Unlimited space is legal JSON, but an
# unsure model might never write anything else.
JSON_SPACE = r"( |\n {0,40})?"


@dataclass(frozen=True, slots=True)
class Grammar:
    """A set of texts. The class methods make and check it; ``text`` is its form in llguidance."""

    text: str

    @classmethod
    def json_schema(cls, schema: dict[str, Any] | str, *, check: bool = True) -> Grammar:
        """JSON values that match ``schema``, with the keys of objects in the schema's order.

        Args:
            check: compile it to see whether it can be used, which may take long; else :class:`Matchers` tells.

        Raises:
            InputError: it is not a JSON schema, matches nothing, or uses a keyword that cannot be enforced.
        """
        text = schema if isinstance(schema, str) else json.dumps(schema)
        _check_size(text, "JSON schema")
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the JSON schema is not JSON: {error}", "Give a JSON object") from error
        if not isinstance(parsed, dict):
            raise InputError(f"the JSON schema is {_shortened(text)}, not a JSON object", "Give a JSON object")
        if "x-guidance" in parsed:  # would let a schema turn its own enforcement off
            raise InputError(
                "the JSON schema contains x-guidance", "Drop it: the options of the grammar library are fixed"
            )
        options: Any = {"whitespace_flexible": True, "whitespace_pattern": JSON_SPACE, "lenient": False}
        made = _matcher().grammar_from_json_schema(text, overrides=options)
        return cls._checked(made, "JSON schema") if check else cls(made)

    @classmethod
    def json_object(cls, *, check: bool = True) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"}, check=check)

    @classmethod
    def regex(cls, text: str) -> Grammar:
        """Texts that fully match a regular expression, which has no look-around or back-references.

        Raises:
            InputError: the expression is invalid.
        """
        _check_size(text, "regular expression")
        return cls._checked(_matcher().grammar_from_regex(text), "regular expression")

    @classmethod
    def lark(cls, text: str, *, check: bool = True) -> Grammar:
        """Texts of a context-free grammar in Lark's notation, from its rule ``start``.

        Args:
            check: as in :meth:`json_schema`.

        Raises:
            InputError: the grammar is invalid.
        """
        _check_size(text, "grammar")
        made = _matcher().grammar_from_lark(text)
        return cls._checked(made, "grammar") if check else cls(made)

    @classmethod
    def _checked(cls, text: str, kind: str) -> Grammar:
        failed, messages = _matcher().validate_grammar_with_warnings(text, limits=_limits())
        if failed:
            raise InputError(f"the {kind} cannot be used: {_shortened(' '.join(messages))}", f"Change the {kind}")
        return cls(text)


class Matchers:
    """Makes matchers for a tokenizer and a model, whose ``vocab_size`` may exceed the tokenizer's."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        _matcher()
        from llguidance import LLTokenizer, TokenizerWrapper

        self.vocab_size = vocab_size
        self._tokens: LLTokenizer = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, vocab_size)))
        self.end: int = self._tokens.eos_token  # in masks: the text may end here
        self._started: OrderedDict[tuple[str, tuple[int, ...]], Matcher] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, grammar: Grammar, stop_tokens: Sequence[int]) -> Matcher:
        """A matcher at the beginning of a text. Grammars are kept compiled, so that another thread can do that before.

        Raises:
            InputError: the grammar is invalid, allows no text, or is too large.
        """
        key = (grammar.text, tuple(stop_tokens))
        with self._lock:
            if (known := self._started.get(key)) is not None:
                self._started.move_to_end(key)
                return known.copy()
        matcher = self._compile(grammar, stop_tokens)
        with self._lock:
            self._started[key] = matcher
            if len(self._started) > KEPT:
                self._started.popitem(last=False)
        return matcher.copy()

    def _compile(self, grammar: Grammar, stop_tokens: Sequence[int]) -> Matcher:
        inner = _matcher()(self._tokens, grammar.text, log_level=0, limits=_limits())
        matcher = Matcher(self, inner, np.array(stop_tokens, dtype=np.int64))
        matcher.look()
        if matcher.failed or matcher.finished:
            reason = _shortened(inner.get_error()) or "it allows no text but the empty one"
            raise InputError(f"the JSON schema or grammar cannot be used: {reason}", "Change it")
        return matcher


class Matcher:
    """The position of one sample in its grammar.

    Attributes:
        allowed: which tokens may come next, [V].
        finished: the text is complete and nothing can follow.
        failed: the library gave up, for example because the grammar's state grew too large.
    """

    def __init__(self, matchers: Matchers, inner: LLMatcher, stop_tokens: NDArray[np.int64]) -> None:
        self._matchers, self._inner = matchers, inner
        self._stop_tokens = stop_tokens[stop_tokens < matchers.vocab_size]
        self.allowed: NDArray[np.bool_] = np.zeros(matchers.vocab_size, dtype=np.bool_)
        self.finished = self.failed = False

    def copy(self) -> Matcher:
        """An independent copy at the same position."""
        twin = Matcher(self._matchers, self._inner.deep_copy(), self._stop_tokens)
        twin.allowed, twin.finished, twin.failed = self.allowed, self.finished, self.failed
        return twin

    def push(self, token: int) -> None:
        """Advance by a drawn token that is not a stop token."""
        if not self._inner.consume_token(token):
            self.failed = True
        else:
            self.look()

    def look(self) -> None:
        """Compute which tokens may come next."""
        size = self._matchers.vocab_size
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[:size].astype(np.bool_)
        complete = bool(allowed[self._matchers.end])
        allowed[self._matchers.end] = False
        allowed[self._stop_tokens] = False
        can_continue = bool(allowed.any())
        self.failed = self._inner.is_error() or not (can_continue or complete)
        self.finished = complete and not can_continue
        allowed[self._stop_tokens] = complete
        self.allowed = allowed


class _Vocabulary:
    """The tokenizer in the form that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        known = range(min(tokenizer.vocab_size, vocab_size))
        self.tokens = [tokenizer.token_bytes(id) for id in known] + [b""] * (vocab_size - len(known))
        # Tokens without bytes are not part of texts. One of them marks the end; a tokenizer without any gives up its
        # last entry, which then cannot occur in texts.
        self.special_token_ids = [id for id, content in enumerate(self.tokens) if not content]
        self.eos_token_id = self.special_token_ids[0] if self.special_token_ids else vocab_size - 1
        self.bos_token_id = None
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


def _check_size(text: str, kind: str) -> None:
    if len(text) > MAX_CHARS:
        raise InputError(f"the {kind} has {len(text):,} characters", f"Give one of at most {MAX_CHARS:,}")


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(initial_lexer_fuel=FUEL)


def _matcher() -> type[LLMatcher]:
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise InputError("grammars need llguidance", "Install it: pip install 'herdlm[grammar]'") from error
    return LLMatcher


def _shortened(text: str, length: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]}..."
