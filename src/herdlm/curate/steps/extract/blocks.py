"""Blocks: runs of text between borders of block-level elements, with the containers around them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BREAK = "\x00"  # cannot occur in parsed text
_WIDE = (
    "\u2e80-\u2fff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uffef"  # scripts written without spaces between words
)
_UNSPACED = re.compile(f"[{_WIDE}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_WIDE_BREAK = re.compile(f"(?<=[{_WIDE}])[ \t\r]*\n[ \t\r\n]*(?=[{_WIDE}])")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_BLANK_LINE = re.compile(r"^[^\S\n]+$", re.MULTILINE)
CODE_SHARE = 0.9  # of a block with line breaks that is a listing


@dataclass(slots=True)
class Blocks:
    """The blocks of pages in order, an entry in each list, and the containers in order of their opening tags.

    A page's first container is its ``document``, which is its own parent. The ``parent`` of any other comes before it.
    The blocks of a container are first <= b < last. Containers have the same ``path`` if they are alike on one page.
    ``link`` and ``bold`` count characters. ``words`` counts words, or two characters of a script without spaces as one.
    """

    text: list[str] = field(default_factory=list)
    container: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    link: list[int] = field(default_factory=list)
    bold: list[int] = field(default_factory=list)
    preformatted: list[bool] = field(default_factory=list)

    document: list[int] = field(default_factory=list)  # of each page
    parent: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    inherited: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    path: list[int] = field(default_factory=list)

    def open(self, parent: int, name: str, mask: int, depth: int, path: int) -> None:
        """Append a container, of which the end is not yet known. A document is its own parent."""
        inherited = self.inherited[parent] if parent < len(self.inherited) else 0
        self.parent.append(parent)
        self.first.append(len(self.text))
        self.last.append(0)
        self.depth.append(depth)
        self.own.append(mask)
        self.inherited.append(inherited | mask)
        self.name.append(name)
        self.path.append(path)

    def add(self, raw: str, container: int, link: int, bold: int, preformatted: bool, code: int) -> None:  # noqa: PLR0917 - all of a block
        """Append a block unless it is blank. ``raw`` is serialized text with BREAK for line breaks.

        ``code`` counts the characters in code elements: lines that are all code keep their indentation.
        """
        listing = code > 0 and BREAK in raw and code >= CODE_SHARE * len(raw.replace(BREAK, "").strip())
        if "&" in raw:
            raw = raw.replace("&nbsp;", "\xa0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        unspaced = 0
        if not raw.isascii():
            raw = _INVISIBLE.sub("", raw)
            unspaced = len(_UNSPACED.findall(raw))
        if listing:
            raw = "\n".join([line.strip(" \t\r\n").replace("\n", " ") for line in raw.split(BREAK)])
            preformatted = True
        if preformatted:
            text = _BLANK_LINE.sub("", raw.replace(BREAK, "\n").replace("\xa0", " ")).strip("\n")
            words = len(text.split())
        else:
            if unspaced and "\n" in raw:
                raw = _WIDE_BREAK.sub("", raw)
            if BREAK in raw:
                lines = [line.split() for line in raw.split(BREAK)]
                text = "\n".join([" ".join(line) for line in lines if line])
                words = sum(map(len, lines))
            else:
                pieces = raw.split()
                text = " ".join(pieces)
                words = len(pieces)
        if words:
            self.text.append(text)
            self.container.append(container)
            self.words.append(max(words, unspaced // 2))
            self.link.append(link)
            self.bold.append(bold)
            self.preformatted.append(preformatted)
