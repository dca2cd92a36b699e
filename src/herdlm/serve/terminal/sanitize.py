"""Sanitizes a model's text for a terminal: it cannot move the cursor, set a title or type for the user."""

from __future__ import annotations

import re

# Complete escape sequences of ECMA-48: control sequences, and strings such as a window title.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|(?:\x1b[\]P^_X]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,512}(?:\x07|\x1b\\|\x9c)"
    r"|\r(?=\n)"
)
# A possible start of one at the end of a piece.
_PARTIAL = re.compile(
    r"(?:\x1b|(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}"
    r"|(?:\x1b[\]P^_X]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,512}\x1b?|\r)\Z"
)
# Other control characters become their pictures or U+FFFD. So do bidirectional marks, which could show
# text in another order than it is written.
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


class TerminalSanitizer:
    """Sanitizes text that arrives in pieces, even if a piece ends within an escape sequence."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Add a piece; returns the text that can be printed now."""
        text = _SEQUENCE.sub("", self._held + piece)
        partial = _PARTIAL.search(text)
        self._held = text[partial.start() :] if partial else ""
        return text[: partial.start() if partial else None].translate(_VISIBLE)

    def end(self) -> str:
        """Return the text held back, an incomplete sequence, as pictures."""
        rest, self._held = self._held, ""
        return rest.translate(_VISIBLE)


def sanitize(text: str) -> str:
    """Sanitize a complete text."""
    cleaner = TerminalSanitizer()
    return cleaner.feed(text) + cleaner.end()
