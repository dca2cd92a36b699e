"""From prompts and sampling parameters to requests: every check before anything is generated."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.generate.pages import PagePool
from herdlm.generate.request import SamplingParams
from herdlm.generate.sampling.detokenize import TextStream
from herdlm.generate.sampling.grammar import Matcher, Matchers
from herdlm.generate.sampling.sampling import sample_key
from herdlm.generate.sequences import Integers, PromptScores, Request, Sample
from herdlm.model.config import ModelConfig
from herdlm.tokens.tokenizer import Tokenizer


def check_model(config: ModelConfig, tokenizer: Tokenizer | None) -> None:
    """Check that a model can generate with a tokenizer.

    Raises:
        InputError: it is a reward model, or its vocabulary is smaller than the tokenizer's.
    """
    if config.head != "lm":
        raise InputError("a reward model gives scores, no tokens", "Generate with a language model")
    if tokenizer and tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} entries, the model {config.vocab_size}",
            "Use the tokenizer the model was trained with",
        )


class InputProcessor:
    """Checks inputs for one model, tokenizer and cache, and makes numbered requests of them."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None, pool: PagePool) -> None:
        self.config, self.tokenizer, self.pool = config, tokenizer, pool
        self._matchers: Matchers | None = None  # made for the first request with a grammar
        self._making = threading.Lock()
        self._next_id = 0

    def request(self, prompt: Sequence[int], params: SamplingParams, stream: bool) -> Request:
        """A new request.

        Raises:
            InputError: the prompt or a parameter is invalid, or the cache is too small.
        """
        tokens = np.array(prompt, dtype=np.int64)
        vocabulary, longest = self.config.vocab_size, self.config.max_seq_len
        if tokens.ndim != 1 or not len(tokens):
            raise InputError("a prompt has no tokens", "Give at least the begin-of-text token")
        if tokens.min() < 0 or tokens.max() >= vocabulary:
            raise InputError(f"a prompt holds token ids outside 0 to {vocabulary - 1}", "Use the model's tokenizer")
        if params.forced is not None:
            longest += 1  # a token that is only scored takes no place
        if len(tokens) >= longest:
            raise InputError(
                f"a prompt of {len(tokens)} tokens leaves no room in max_seq_len {self.config.max_seq_len}",
                "Shorten it",
            )
        self._check_options(params, stream)
        limit = min(len(tokens) + params.max_tokens, longest)
        # The last token drawn is never computed.
        if self.pool.pages_for(limit - 1) > self.pool.count:
            raise InputError(
                f"a prompt of {len(tokens)} tokens with up to {limit - len(tokens)} new ones does not fit into the "
                f"cache of {self.pool.count * self.pool.page_size}",
                "Raise cache_tokens or lower max_tokens",
            )
        matcher = self._matcher(params)
        self._next_id += 1
        return Request(
            self._next_id,
            tokens.astype(np.int32),
            params,
            limit,
            stream,
            params.samples,
            _bias(params),
            PromptScores(len(tokens), params.prompt_logprobs_from) if params.prompt_logprobs else None,
            matcher,
        )

    def samples(self, request: Request) -> list[Sample]:
        """The request's samples, with nothing generated."""
        params = request.params
        has_text = self.tokenizer is not None and (request.stream or bool(params.stop))
        return [
            Sample(
                request,
                index,
                sample_key(params.seed, index),
                TextStream(self._token_bytes, params.stop, min_tokens=params.min_tokens) if has_text else None,
                matcher=request.matcher.copy() if request.matcher else None,
            )
            for index in range(params.samples)
        ]

    def _check_options(self, params: SamplingParams, stream: bool) -> None:
        vocabulary = self.config.vocab_size
        if params.stop and not self.tokenizer:
            raise InputError("stop strings need a tokenizer", "Give the engine one, or use stop_tokens")
        if params.top_logprobs > vocabulary:
            raise InputError(f"top_logprobs = {params.top_logprobs}", f"Give at most {vocabulary}, the vocabulary size")
        if params.forced is not None and params.forced >= vocabulary:
            raise InputError(f"forced = {params.forced}", f"Give a token id from 0 to {vocabulary - 1}")
        if wrong := [token for token in params.compared if not 0 <= token < vocabulary]:
            raise InputError(f"compared names the token {wrong[0]}", f"Give ids from 0 to {vocabulary - 1}")
        if wrong := [token for token, _ in params.logit_bias if token >= vocabulary]:
            raise InputError(f"logit_bias names the token {wrong[0]}", f"Give ids from 0 to {vocabulary - 1}")
        if params.min_tokens and len({token for token in params.stop_tokens if token < vocabulary}) == vocabulary:
            raise InputError("min_tokens with every token a stop token leaves none to draw", "Drop one of the two")
        if stream and params.samples > params.n:
            raise InputError(f"best_of = {params.best_of} cannot be streamed", "Turn off stream, or drop best_of")

    def prepare(self, params: SamplingParams) -> None:
        """Compile a request's grammar, in any thread, so that :meth:`request` finds it compiled.

        Raises:
            InputError: it cannot be used.
        """
        self._matcher(params)

    def _matcher(self, params: SamplingParams) -> Matcher | None:
        """The beginning of the samples' grammar."""
        if params.grammar is None:
            return None
        if not self.tokenizer:
            raise InputError("a grammar needs a tokenizer", "Give the engine one")
        with self._making:
            self._matchers = self._matchers or Matchers(self.tokenizer, self.config.vocab_size)
        return self._matchers.start(params.grammar, params.stop_tokens)

    def _token_bytes(self, token: int) -> bytes:
        assert self.tokenizer is not None
        # A model's vocabulary may be padded beyond its tokenizer's.
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.vocab_size else b""


def _bias(params: SamplingParams) -> tuple[Integers, NDArray[np.float32]] | None:
    if not params.logit_bias:
        return None
    tokens, values = zip(*params.logit_bias, strict=True)
    return np.array(tokens, dtype=np.int64), np.array(values, dtype=np.float32)
