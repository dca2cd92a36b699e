"""Splits serialized HTML into blocks: runs of text between borders of block-level elements, with their surroundings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from herdlm.curate.steps.extract.signals import TAG_BIT, attribute_signals

TOKEN = re.compile(r'<(/?)([a-zA-Z][^\s/>]*)([^">]*+(?:"[^"]*+"[^">]*+)*+)>([^<]*)')
_INLINE, _CONTAINER, _LINK, _BREAK, _IMAGE, _BOLD, _PRE, _RULE = range(8)
KIND = {
    **dict.fromkeys(
        [
            "span",
            "em",
            "i",
            "u",
            "s",
            "font",
            "small",
            "big",
            "sub",
            "sup",
            "code",
            "kbd",
            "samp",
            "var",
            "tt",
            "abbr",
            "acronym",
            "cite",
            "q",
            "dfn",
            "mark",
            "time",
            "label",
            "ins",
            "del",
            "bdi",
            "bdo",
            "data",
            "ruby",
            "rb",
            "rt",
            "rp",
            "wbr",
            "nobr",
            "strike",
            "input",
            "meta",
            "link",
            "col",
            "source",
            "track",
            "param",
            "area",
            "base",
            "embed",
            "basefont",
            "bgsound",
            "frame",
            "keygen",
        ],
        _INLINE,
    ),
    "a": _LINK,
    "br": _BREAK,
    "img": _IMAGE,
    "b": _BOLD,
    "strong": _BOLD,
    "pre": _PRE,
    "hr": _RULE,
}
TITLED = frozenset(["section", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "p", "li"])  # ids from titles
ANCHOR_SIGNS = frozenset("¶#§🔗")  # texts of the links from headings to themselves
BREAK = "\x00"  # cannot occur in parsed text
_WIDE = (
    "\u2e80-\u2fff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uffef"  # scripts written without spaces between words
)
_UNSPACED = re.compile(f"[{_WIDE}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_WIDE_BREAK = re.compile(f"(?<=[{_WIDE}])[ \t\r]*\n[ \t\r\n]*(?=[{_WIDE}])")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_ALT = re.compile(r'\balt="([^"]*)"')
_FORMULA_ALT = re.compile(r"[=\\^{}\u2200-\u22ff\u0391-\u03c9]|^[^\w\s]+$")
_FORMULA_NAME = re.compile(r'\b(?:class|id)="[^"]*\b(?:math|tex|latex|equation|formula|emoji|smiley)', re.IGNORECASE)
LONGEST_INLINE_ALT = 40


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

    def add(self, raw: str, container: int, link: int, bold: int, preformatted: bool) -> None:
        """Append a block unless it is blank. ``raw`` is serialized text with BREAK for line breaks."""
        if "&" in raw:
            raw = raw.replace("&nbsp;", "\xa0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        unspaced = 0
        if not raw.isascii():
            raw = _INVISIBLE.sub("", raw)
            unspaced = len(_UNSPACED.findall(raw))
        if preformatted:
            text = raw.replace(BREAK, "\n").strip("\n")
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


def read_blocks(*pages: str) -> Blocks:
    """Return the blocks of pages, which the parser must have serialized: tags closed, attributes in double quotes."""
    blocks = Blocks()
    paths: dict[tuple[int, str, int], int] = {}
    for html in pages:
        _read_page(html, blocks, paths)
    return blocks


def _read_page(html: str, page: Blocks, paths: dict[tuple[int, str, int], int]) -> None:  # noqa: PLR0912, PLR0915 - one loop over all tokens, unrolled for speed
    document = len(page.parent)
    page.document.append(document)
    page.parent.append(document)
    page.first.append(len(page.text))
    page.last.append(0)
    page.depth.append(0)
    page.own.append(0)
    page.inherited.append(0)
    page.name.append("#document")
    page.path.append(paths.setdefault((-1, "", document), len(paths)))
    stack = [document]
    buffer: list[str] = []
    link = bold = pre = link_size = bold_size = 0
    kind_of, bit_of = KIND.get, TAG_BIT.get
    parent, first, last, depth, own = page.parent, page.first, page.last, page.depth, page.own
    inherited, name, path, done = page.inherited, page.name, page.path, page.text
    for closing, tag, attributes, text in TOKEN.findall(html):
        kind = kind_of(tag, 1)
        if kind == 0:
            pass
        elif kind == 2:
            link = not closing
        elif kind == 5:
            bold = not closing
        elif kind == 4:
            if alt := _alt(attributes, buffer):
                buffer.append(alt)
        elif kind == 3 and not (buffer and buffer[-1] == BREAK):
            buffer.append(BREAK)
        else:  # a border of a container, a rule, or an empty line
            if buffer:
                raw = "".join(buffer)
                buffer.clear()
                if not raw.isspace():
                    page.add(raw, stack[-1], link_size, bold_size, pre > 0)
                link_size = bold_size = 0
            if kind in (3, 7):
                pass
            elif closing:
                if len(stack) > 1:  # rarely, a quote in an attribute's name hides tags from the pattern
                    last[stack.pop()] = len(done)
                pre -= kind == 6
            else:
                above = stack[-1]
                mask = bit_of(tag, 0)
                if attributes:
                    mask |= attribute_signals(attributes, tag not in TITLED)
                stack.append(len(parent))
                parent.append(above)
                first.append(len(done))
                last.append(0)
                depth.append(len(stack) - 1)
                own.append(mask)
                inherited.append(inherited[above] | mask)
                name.append(tag)
                path.append(paths.setdefault((path[above], tag, mask), len(paths)))
                pre += kind == 6
        if text and not (link and text in ANCHOR_SIGNS) and (buffer or pre or not text.isspace()):
            buffer.append(text)
            if link:
                link_size += len(text)
            if bold:
                bold_size += len(text)
    if buffer:
        page.add("".join(buffer), stack[-1], link_size, bold_size, pre > 0)
    for number in stack:
        last[number] = len(done)


def _alt(attributes: str, before: list[str]) -> str:
    """Return the alternative text of an image that stands for text: a formula, an emoji, or an inline sign."""
    found = _ALT.search(attributes)
    if not found or not found[1]:
        return ""
    alt = found[1]
    if _FORMULA_ALT.search(alt) or _FORMULA_NAME.search(attributes):
        return f" {alt} "
    inside = before and before[-1] != BREAK and not before[-1].isspace()
    return f" {alt} " if inside and len(alt) <= LONGEST_INLINE_ALT else ""
