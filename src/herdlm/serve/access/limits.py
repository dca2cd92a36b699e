"""How much may go on at once and how much a key may ask for: who comes too early is told when to come again."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from herdlm.serve.access.keys import Key
from herdlm.serve.errors import RefusedError

RATE_WINDOW_SECONDS = 30.0
LONGEST_RETRY = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What the server takes on.

    Attributes:
        body_bytes: of one request.
        body_seconds: for a client to send it.
        request_seconds: from its first byte to the answer's last.
        samples: answers under way or waiting, of all clients and models together; beyond it the server is too busy.
        drain_seconds: after SIGTERM, for answers under way to end.
    """

    body_bytes: int = 8 * 2**20
    body_seconds: float = 30.0
    request_seconds: float = 600.0
    samples: int = 2048
    drain_seconds: float = 30.0


class TokenBucket:
    """An allowance that refills steadily up to ``per_minute``. It may be overdrawn; then it allows nothing for a while.

    Tokens of an answer are not known beforehand. They are taken as they are drawn, so that over time no more than
    ``per_minute`` a minute are had, while one answer may begin with the last of the allowance.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self._level, self._at = float(per_minute), clock()

    def wait(self, amount: float = 1.0) -> float:
        """Seconds until ``amount`` (or, where that is less, all a full bucket holds) may be taken; 0 for now."""
        now = self.clock()
        self._level = min(self._level + (now - self._at) * self.per_minute / 60, self.per_minute)
        self._at = now
        missing = min(amount, self.per_minute) - self._level
        return max(missing * 60 / self.per_minute, 0.0)

    def take(self, amount: float) -> None:
        """Take ``amount``, whatever there is."""
        self.wait()
        self._level -= amount


@dataclass(slots=True)
class KeyUsage:
    """What a key has used of what it may."""

    key: Key
    requests: TokenBucket | None
    tokens: TokenBucket | None
    running: int = 0


class KeyLimiter:
    """The key_limiter of all keys. A key whose limits were changed in the file starts a new usage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._usage: dict[str, KeyUsage] = {}

    def admit(self, key: Key) -> KeyUsage:
        """Let a request of ``key`` in; count it out by lowering ``running``.

        Raises:
            RefusedError: one of the key's limits is reached.
        """
        usage = self._usage.get(key.sha256)
        if usage is None or usage.key != key:
            usage = KeyUsage(key, self._bucket(key.requests_per_minute), self._bucket(key.tokens_per_minute))
            self._usage[key.sha256] = usage
        if key.concurrent is not None and usage.running >= key.concurrent:
            raise _too_many(f"key {key.name} has {usage.running} requests under way, its limit", 1)
        if usage.requests and (wait := usage.requests.wait()):
            raise _too_many(f"key {key.name} may send {key.requests_per_minute} requests a minute", wait)
        if usage.tokens and (wait := usage.tokens.wait()):
            raise _too_many(f"key {key.name} may use {key.tokens_per_minute} tokens a minute", wait)
        if usage.requests:
            usage.requests.take(1)
        usage.running += 1
        return usage

    def _bucket(self, per_minute: int | None) -> TokenBucket | None:
        return None if per_minute is None else TokenBucket(per_minute, self.clock)

    @staticmethod
    def charge_prompt(usage: KeyUsage, tokens: int) -> None:
        """Charge a prompt.

        Raises:
            RefusedError: the allowance does not cover it yet.
        """
        if usage.tokens:
            if wait := usage.tokens.wait(tokens):
                limit = usage.key.tokens_per_minute
                raise _too_many(f"key {usage.key.name} may use {limit} tokens a minute, the prompt has {tokens}", wait)
            usage.tokens.take(tokens)

    @staticmethod
    def charge_completion(usage: KeyUsage, tokens: int) -> None:
        """Charge tokens that were drawn."""
        if usage.tokens:
            usage.tokens.take(tokens)


@dataclass(slots=True)
class ConcurrencyLimiter:
    """Counts the answers under way in the whole server, and how fast they end."""

    limit: int
    clock: Callable[[], float] = time.monotonic
    samples: int = 0
    _ended: deque[tuple[float, int]] = field(default_factory=deque)

    def acquire(self, samples: int) -> None:
        """Count a request's answers in.

        Raises:
            RefusedError: there are too many, or the request alone has too many.
        """
        if samples > self.limit:
            raise RefusedError(
                f"the request asks for {samples} answers at once",
                f"At most {self.limit} are possible",
                code="too_many_answers",
            )
        if self.samples + samples > self.limit:
            raise _too_many(
                f"the server has {self.samples} answers under way", self.retry_after(samples), "server_busy"
            )
        self.samples += samples

    def release(self, samples: int) -> None:
        """Count them out."""
        self.samples -= samples
        self._ended.append((self.clock(), samples))
        self._forget()

    def retry_after(self, samples: int) -> float:
        """Seconds until so many answers will have ended, judged by how many ended lately."""
        self._forget()
        ended = sum(count for _, count in self._ended)
        return samples * RATE_WINDOW_SECONDS / ended if ended else 5.0

    def _forget(self) -> None:
        before = self.clock() - RATE_WINDOW_SECONDS
        while self._ended and self._ended[0][0] < before:
            self._ended.popleft()


def _too_many(what: str, wait: float, code: str = "rate_limit_exceeded") -> RefusedError:
    seconds = min(max(math.ceil(wait), 1), LONGEST_RETRY)
    return RefusedError(what, f"PromptRequest again in {seconds} s", code=code, status=429, retry_after=seconds)
