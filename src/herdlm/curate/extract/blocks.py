"""From serialised HTML to blocks: runs of text between borders of block-level elements, with what surrounds them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from herdlm.curate.extract.cues import TAG_BIT, attribute_cues

Tag = tuple[int, bool, str, int]  # the kind of element, whether it closes, its name, the mask of its cues
_TAG = re.compile(r'<(/?[a-zA-Z][^\s/>]*[^">]*+(?:"[^"]*+"[^">]*+)*+)(>)([^<]*)')
_ELEMENT = re.compile(r"(/?)([a-zA-Z][^\s/>]*)")
_INLINE, _CONTAINER, _PRE, _RULE, _BREAK, _LINK, _BOLD, _IMAGE, _NO_TAG = range(9)  # up to _BREAK are borders
KIND = {
    **dict.fromkeys(
        ["span", "em", "i", "u", "s", "font", "small", "big", "sub", "sup", "code", "kbd", "samp", "var", "tt",
        "abbr", "acronym", "cite", "q", "dfn", "mark", "time", "label", "ins", "del", "bdi", "bdo", "data", "ruby",
        "rb", "rt", "rp", "wbr", "nobr", "strike", "input", "meta", "link", "col", "source", "track", "param",
        "area", "base", "embed", "basefont", "bgsound", "frame", "keygen"], _INLINE),
    "a": _LINK, "br": _BREAK, "img": _IMAGE, "b": _BOLD, "strong": _BOLD, "pre": _PRE, "hr": _RULE,
}  # fmt: skip
TITLED = frozenset(["section", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "p", "li"])  # ids from titles
ANCHOR_SIGNS = frozenset("¶#§🔗")  # texts of links from headings to themselves
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
    """The blocks of pages in order, a list entry for each, and the containers in order of their opening tags.

    A page's first container is its ``document``, which is its own parent; the ``parent`` of any other comes before it.
    A container's blocks are first <= b < last. Containers have the same ``path`` where they are alike on one page.
    ``link`` and ``bold`` count characters, ``words`` words, or two characters of a script without spaces for one.
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
        """Append a block unless it is blank; ``raw`` is serialised text with BREAK for line breaks."""
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
    """Blocks of pages, which the parser must have serialised: tags closed, attributes in double quotes."""
    blocks = Blocks()
    paths: dict[tuple[int, str, int], int] = {}
    known: dict[str, Tag] = {}
    for html in pages:
        _read_page(html, blocks, paths, known)
    return blocks


def _read_page(  # noqa: PLR0912, PLR0915 - one loop over all tags, unrolled for speed
    html: str, page: Blocks, paths: dict[tuple[int, str, int], int], known: dict[str, Tag]
) -> None:
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
    link = bold = False
    pre = link_size = bold_size = 0
    parent, first, last, depth, own = page.parent, page.first, page.last, page.depth, page.own
    inherited, name, path, done = page.inherited, page.name, page.path, page.text
    tag_of = known.get
    for inner, _, text in _tags(html):
        tag = tag_of(inner)
        if tag is None:
            tag = known[inner] = _read_tag(inner)
        kind, closing, element, mask = tag
        if kind == _INLINE:
            pass
        elif kind > _BREAK:
            if kind == _LINK:
                link = not closing
            elif kind == _BOLD:
                bold = not closing
            elif kind == _NO_TAG:
                continue
            elif alt := _alt(inner, buffer):
                buffer.append(alt)
        elif kind == _BREAK and not (buffer and buffer[-1] == BREAK):
            buffer.append(BREAK)
        else:  # a border: of a container, a rule, or an empty line
            if buffer:
                raw = "".join(buffer)
                buffer.clear()
                if not raw.isspace():
                    page.add(raw, stack[-1], link_size, bold_size, pre > 0)
                link_size = bold_size = 0
            if kind in (_BREAK, _RULE):
                pass
            elif closing:
                if len(stack) > 1:  # a quote in an attribute's name hides tags from the pattern, rarely
                    last[stack.pop()] = len(done)
                pre -= kind == _PRE
            else:
                above = stack[-1]
                stack.append(len(parent))
                parent.append(above)
                first.append(len(done))
                last.append(0)
                depth.append(len(stack) - 1)
                own.append(mask)
                inherited.append(inherited[above] | mask)
                name.append(element)
                path.append(paths.setdefault((path[above], element, mask), len(paths)))
                pre += kind == _PRE
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


def _tags(html: str) -> list[tuple[str, str, str]]:
    """The inside of each tag, an empty string or a bracket, and the text after it.

    Cut at all angle brackets; where some of them stand in attributes, which leaves quotes open, by the pattern.
    """
    tags = [piece.partition(">") for piece in html.split("<")]
    del tags[0]
    cut = any(inner.count('"') & 1 for inner in {inner for inner, _, _ in tags}) or "" in {end for _, end, _ in tags}
    return _TAG.findall(html) if cut else tags


def _read_tag(inner: str) -> Tag:
    if inner.startswith("a "):
        return _LINK, False, "a", 0
    found = _ELEMENT.match(inner)
    if found is None:
        return _NO_TAG, False, "", 0
    slash, element = found.groups()
    kind = KIND.get(element, _CONTAINER)
    mask = 0
    if kind in (_CONTAINER, _PRE) and not slash:
        mask = TAG_BIT.get(element, 0)
        if attributes := inner[found.end() :]:
            mask |= attribute_cues(attributes, element not in TITLED)
    return kind, bool(slash), element, mask


def _alt(attributes: str, before: list[str]) -> str:
    """The alternative text of an image that stands for text: a formula, an emoji, or a sign inside a line."""
    found = _ALT.search(attributes)
    if not found or not found[1]:
        return ""
    alt = found[1]
    if _FORMULA_ALT.search(alt) or _FORMULA_NAME.search(attributes):
        return f" {alt} "
    inside = before and before[-1] != BREAK and not before[-1].isspace()
    return f" {alt} " if inside and len(alt) <= LONGEST_INLINE_ALT else ""
