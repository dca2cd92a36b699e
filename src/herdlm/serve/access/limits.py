"""Limits per key and for the whole server. Requests over a limit get 429 with Retry-After."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from herdlm.serve.access.keys import Key
from herdlm.serve.errors import RefusedError

RATE_WINDOW_SECONDS = 30.0
MAX_RETRY_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The server's limits.

    Attributes:
        body_bytes: size of a request body.
        body_seconds: time for a client to send the body.
        request_seconds: time from a request's first byte to the last byte of its answer.
        samples: answers running or waiting, of all clients and models together.
        drain_seconds: time after SIGTERM for running answers to finish.
        connections: connections at once; further ones get status 503.
        head_seconds: time for a client to send the headers of a request.
        read_seconds: time for which a client may leave what is sent to it unread.
    """

    body_bytes: int = 8 * 2**20
    body_seconds: float = 30.0
    request_seconds: float = 600.0
    samples: int = 2048
    drain_seconds: float = 30.0
    connections: int = 4096
    head_seconds: float = 20.0
    read_seconds: float = 60.0


class TokenBucket:
    """A token bucket that refills steadily up to ``per_minute``. It may be overdrawn, and then refuses for a while.

    The length of an answer is not known in advance. Its tokens are taken as they are sampled, so the average rate stays
    at ``per_minute``, while a single answer may start on the last token of the allowance.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self._level, self._at = float(per_minute), clock()

    def wait(self, amount: float = 1.0) -> float:
        """Seconds until ``amount`` is available, 0 for now. An amount above the capacity needs a full bucket only."""
        now = self.clock()
        self._level = min(self._level + (now - self._at) * self.per_minute / 60, self.per_minute)
        self._at = now
        missing = min(amount, self.per_minute) - self._level
        return max(missing * 60 / self.per_minute, 0.0)

    def take(self, amount: float) -> None:
        """Take ``amount``, even if that overdraws the bucket."""
        self.wait()
        self._level -= amount


@dataclass(slots=True)
class KeyUsage:
    """What a key has used of its limits."""

    key: Key
    requests: TokenBucket | None
    tokens: TokenBucket | None
    running: int = 0


class KeyLimiter:
    """Enforces the limits of keys. A key whose limits change in the file starts over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._usage: dict[str, KeyUsage] = {}

    def admit(self, key: Key) -> KeyUsage:
        """Admit a request of ``key``. Decrement ``running`` of the result when the request ends.

        Raises:
            RefusedError: the key is at one of its limits.
        """
        usage = self._usage.get(key.sha256)
        if usage is None or usage.key != key:
            usage = KeyUsage(key, self._bucket(key.requests_per_minute), self._bucket(key.tokens_per_minute))
            self._usage[key.sha256] = usage
        if key.concurrent is not None and usage.running >= key.concurrent:
            raise _over_limit(f"key {key.name} has {usage.running} requests running, its limit", 1)
        if usage.requests and (wait := usage.requests.wait()):
            raise _over_limit(f"key {key.name} may send {key.requests_per_minute} requests a minute", wait)
        if usage.tokens and (wait := usage.tokens.wait()):
            raise _over_limit(f"key {key.name} may use {key.tokens_per_minute} tokens a minute", wait)
        if usage.requests:
            usage.requests.take(1)
        usage.running += 1
        return usage

    def _bucket(self, per_minute: int | None) -> TokenBucket | None:
        return None if per_minute is None else TokenBucket(per_minute, self.clock)

    @staticmethod
    def charge_prompt(usage: KeyUsage, tokens: int) -> None:
        """Charge a prompt's tokens.

        Raises:
            RefusedError: the key's token limit does not cover the prompt yet.
        """
        if usage.tokens:
            if wait := usage.tokens.wait(tokens):
                limit = usage.key.tokens_per_minute
                raise _over_limit(
                    f"key {usage.key.name} may use {limit} tokens a minute, the prompt has {tokens}", wait
                )
            usage.tokens.take(tokens)

    @staticmethod
    def charge_completion(usage: KeyUsage, tokens: int) -> None:
        """Charge sampled tokens."""
        if usage.tokens:
            usage.tokens.take(tokens)


@dataclass(slots=True)
class ConcurrencyLimiter:
    """Limits the answers that run or wait in the whole server, and measures how fast they finish."""

    limit: int
    clock: Callable[[], float] = time.monotonic
    samples: int = 0
    _finished: deque[tuple[float, int]] = field(default_factory=deque)

    def acquire(self, samples: int) -> None:
        """Count a request's answers in.

        Raises:
            RefusedError: the server is at its limit, or the request alone exceeds it.
        """
        if samples > self.limit:
            raise RefusedError(
                f"the request asks for {samples} answers at once",
                f"Ask for at most {self.limit}",
                code="too_many_answers",
            )
        if self.samples + samples > self.limit:
            raise _over_limit(
                f"the server has {self.samples} answers running or waiting", self.retry_after(samples), "server_busy"
            )
        self.samples += samples

    def release(self, samples: int) -> None:
        """Count them out."""
        self.samples -= samples
        self._finished.append((self.clock(), samples))
        self._prune()

    def retry_after(self, samples: int) -> float:
        """Estimated seconds until ``samples`` answers finish, from the recent rate."""
        self._prune()
        finished = sum(count for _, count in self._finished)
        return samples * RATE_WINDOW_SECONDS / finished if finished else 5.0

    def _prune(self) -> None:
        start = self.clock() - RATE_WINDOW_SECONDS
        while self._finished and self._finished[0][0] < start:
            self._finished.popleft()


def _over_limit(what: str, wait: float, code: str = "rate_limit_exceeded") -> RefusedError:
    seconds = min(max(math.ceil(wait), 1), MAX_RETRY_SECONDS)
    return RefusedError(what, f"Retry after {seconds} s", code=code, status=429, retry_after=seconds)
