"""A model's text as a terminal may have it: nothing in it moves the cursor, changes a title or answers for the user."""

from __future__ import annotations

import re

# Whole escape sequences of ECMA-48: control sequences, and strings such as a window's title up to their end.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|(?:\x1b[\]P^_X]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,512}(?:\x07|\x1b\\|\x9c)"
    r"|\r(?=\n)"
)
# What may be the beginning of one, at the end of a piece.
_BEGUN = re.compile(
    r"(?:\x1b|(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}"
    r"|(?:\x1b[\]P^_X]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,512}\x1b?|\r)\Z"
)
# Every other control character becomes its picture, or the sign for what cannot be shown; so do marks that turn the
# direction of writing, with which text could be shown in another order than it stands.
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


class TerminalSanitizer:
    """Cleans a text that comes in pieces, however an escape sequence is cut."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text so far can be printed now."""
        text = _SEQUENCE.sub("", self._held + piece)
        begun = _BEGUN.search(text)
        self._held = text[begun.start() :] if begun else ""
        return text[: begun.start() if begun else None].translate(_VISIBLE)

    def end(self) -> str:
        """What was held back: a sequence that never ended, in pictures."""
        rest, self._held = self._held, ""
        return rest.translate(_VISIBLE)


def sanitize(text: str) -> str:
    """A whole text cleaned."""
    cleaner = TerminalSanitizer()
    return cleaner.feed(text) + cleaner.end()
