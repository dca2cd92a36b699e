"""Text from a stream of tokens, across which characters and stop strings may be split."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class TextStream:
    """The text of one sample while it grows.

    Args:
        token_bytes: returns the bytes of a token id.
        stop: strings that end the text; it is cut before the first of them.
        min_tokens: stop strings that are complete before this many tokens are ignored.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stop: tuple[str, ...] = (), *, min_tokens: int = 0) -> None:
        self.token_bytes, self.stop, self.min_tokens = token_bytes, stop, min_tokens
        self.text = ""
        self.stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._longest = max(map(len, stop), default=0)
        self._taken = self._pushed = 0

    def push(self, token: int) -> bool:
        """Add one token; returns whether the text has reached a stop string."""
        self._pushed += 1
        return self._extend(self._decoder.decode(self.token_bytes(token)))

    def close(self) -> None:
        """End the stream; an incomplete character becomes the replacement character."""
        self._extend(self._decoder.decode(b"", final=True))
        self.stopped = True

    def take(self) -> str:
        """The text since the last call, except an end that may become part of a stop string."""
        end = len(self.text) - (0 if self.stopped else self._held_back())
        new, self._taken = self.text[self._taken : end], end
        return new

    def _extend(self, piece: str) -> bool:
        if self.stopped or not piece:
            return self.stopped
        before = len(self.text)
        self.text += piece
        if self._pushed < self.min_tokens:
            return False
        # A match must end within the new piece.
        matches = [at for stop in self.stop if (at := self.text.find(stop, max(before - len(stop) + 1, 0))) >= 0]
        if matches:
            self.text = self.text[: min(matches)]
            self.stopped = True
        return self.stopped

    def _held_back(self) -> int:
        """The length of the longest suffix of the text that is a prefix of a stop string."""
        for length in range(min(self._longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self.stop):
                return length
        return 0
