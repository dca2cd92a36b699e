"""Reads serialized HTML in one pass as a browser lays it out: what is inline, not seen, preformatted."""

from __future__ import annotations

import re
from functools import lru_cache

from herdlm.curate.steps.extract.blocks import BREAK, Blocks
from herdlm.curate.steps.extract.signals import TAG_BIT, attribute_signals

TOKEN = re.compile(r'<(/?)([a-zA-Z][^\s/>]*)([^">]*+(?:"[^"]*+"[^">]*+)*+)>([^<]*)')
_INLINE, _CONTAINER, _LINK, _BREAK, _IMAGE, _BOLD, _PRE, _RULE, _CODE, _RAISED, _BUTTON, _UNKNOWN = range(12)
_INLINE_TAGS = (
    "span em i u s font small big sub kbd var abbr acronym cite q dfn mark time label ins del bdi bdo data ruby rb rt "
    "rp wbr nobr strike input meta link col source track param area base embed basefont bgsound frame keygen slot"
)
_CONTAINER_TAGS = (
    "address article aside blockquote body caption center colgroup dd details dialog dir div dl dt fieldset "
    "figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 header hgroup html legend li listing main marquee menu "
    "nav noscript ol optgroup option p search section summary table tbody td tfoot th thead tr ul"
)
KIND = {
    **dict.fromkeys(_INLINE_TAGS.split(), _INLINE),
    **dict.fromkeys(_CONTAINER_TAGS.split(), _CONTAINER),
    **dict.fromkeys(("b", "strong"), _BOLD),
    **dict.fromkeys(("code", "tt", "samp"), _CODE),
    "a": _LINK,
    "br": _BREAK,
    "img": _IMAGE,
    "pre": _PRE,
    "hr": _RULE,
    "sup": _RAISED,
    "button": _BUTTON,
}
TITLED = frozenset(["section", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "p", "li"])  # ids from titles
_VOID_TAGS = "br hr img input wbr meta link col source track param area base embed basefont bgsound frame"
VOID = frozenset(_VOID_TAGS.split())
TEXT_HOLDERS = frozenset(
    ["p", "h1", "h2", "h3", "h4", "h5", "h6", "summary", "dt", "th", "legend"]
)  # a button in these is a part of the text
TABLE_PARTS = frozenset(["table", "tbody", "thead", "tfoot", "td", "th", "colgroup"])  # of code: a row is a line
ANCHOR_SIGNS = frozenset("¶#§🔗")  # texts of the links from headings to themselves
_ALT = re.compile(r'\balt="([^"]*)"')
_FORMULA_ALT = re.compile(r"[=\\^{}\u2200-\u22ff\u0391-\u03c9]|^[^\w\s]+$")
_FORMULA_NAME = re.compile(r'\b(?:class|id)="[^"]*\b(?:math|tex|latex|equation|formula|emoji|smiley)', re.IGNORECASE)
LONGEST_INLINE_ALT = 40

# How an element's attributes make it look.
_PLAIN, _READ_ALOUD, _UNSEEN, _SILENT, _SPACED, _LISTING = range(6)
_STYLED = re.compile(
    r"sr-only|visually|screen-?reader|off-?screen|a11y|aria-hidden|display|hidden|white-space|material-|syntaxhighlighter"
    r"|js-file-line-container|hljs-ln\b|blob-wrapper",
    re.IGNORECASE,
)
_READ_ALOUD_ONLY = re.compile(
    r'class="(?:[^"]*\s)?(?:sr-only|visually-?hidden|hidden-visually|u-visually-hidden|u-hidden-?visually|screen-?reader'
    r'(?:-text|-only)?|a-offscreen|offscreen|a11y-hidden|a11y-only|sr-only-focusable)(?=[\s"])',
    re.IGNORECASE,
)
_SEEN_ON_WIDE_SCREENS = re.compile(r"\b(?:sm|md|lg|xl|2xl):not-sr-only")
_NOT_SHOWN = re.compile(
    r'style="[^"]*\bdisplay:\s*none|(?:^|\s)hidden="(?!until-found|false)|class="(?:material-icons|material-symbols)\b'
)
_STREAMED = re.compile(r'\bid="[SBP]:[0-9a-f]+"')  # React shows these parts when all of the page has come
_SPACES_KEPT = re.compile(r'style="(?![^"]*pre-)[^"]*\bwhite-space:\s*pre\b')
_CODE_NAME = re.compile(r"code|mono|highlight|syntax|listing|source", re.IGNORECASE)
_CODE_TABLE = re.compile(r'class="[^"]*(?:\bsyntaxhighlighter\b|js-file-line-container|\bhljs-ln\b|blob-wrapper)')
_ORDINALS = frozenset(["st", "nd", "rd", "th", "er", "e", "re", "ère", "ème", "nde", "º", "ª", "o", "a", "os", "as"])
_EXPONENT = re.compile(
    r"[-+\u2212\u2013]?(?:\d+(?:[.,/]\d+)?|\d*[A-Za-z\u03b1-\u03c9])(?:[-+\u2212*/·](?:\d+|\d*[A-Za-z\u03b1-\u03c9]))*$"
)
_NUMBER_END = re.compile(r"(?:^|[^\w.])[-+\u2212]?\d[\d.,]*\s*$")
_SYMBOL_END = re.compile(
    r"(?:(?:^|[^A-Za-z\u0370-\u03ff])[A-Za-z\u0370-\u03ff]|π[a-z]|[)\]}]|\b(?:[kcdmnµ]?m|km|ft|in|yd|mi|[kmµ]?g|cm|mm|sec|min|kPa|Hz))\s*$"
)


@lru_cache(maxsize=1 << 14)
def _look(attributes: str) -> int:
    if not _STYLED.search(attributes):
        return _PLAIN
    if _READ_ALOUD_ONLY.search(attributes):
        return _PLAIN if _SEEN_ON_WIDE_SCREENS.search(attributes) else _READ_ALOUD
    if _NOT_SHOWN.search(attributes):
        return _PLAIN if _STREAMED.search(attributes) else _UNSEEN
    if 'aria-hidden="true"' in attributes:
        return _SILENT
    if _CODE_TABLE.search(attributes):
        return _LISTING
    return _SPACED if _SPACES_KEPT.search(attributes) else _PLAIN


def read_blocks(*pages: str) -> Blocks:
    """Return the blocks of pages, which the parser must have serialized: tags closed, attributes in double quotes.

    Elements that HTML does not know are inline unless they hold block elements. Inline elements that are not shown, and
    those for screen readers alone at any level, are left out. In preformatted text, inner block elements are lines.
    """
    blocks = Blocks()
    paths: dict[tuple[int, str, int], int] = {}
    for html in pages:
        _read_page(html, blocks, paths)
    return blocks


def _read_page(html: str, page: Blocks, paths: dict[tuple[int, str, int], int]) -> None:  # noqa: PLR0912, PLR0915 - one loop over all tokens, unrolled for speed
    document = len(page.parent)
    page.document.append(document)
    page.open(document, "#document", 0, 0, paths.setdefault((-1, "", document), len(paths)))
    stack = [document]
    buffer: list[str] = []
    pending: list[tuple[str, str]] = []  # open elements that HTML does not know
    lines: list[int] = []  # where the open lines of preformatted text begin
    aloud: list[str] = []
    link = bold = code = link_size = bold_size = code_size = 0
    pre = nesting = skip_depth = raised_link = 0
    pre_tag = skipped = ""
    raised = skipped_at = -1
    skipped_look = between_lines = 0
    last, name, path, done = page.last, page.name, page.path, page.text

    def flush() -> None:
        nonlocal link_size, bold_size, code_size
        if buffer:
            raw = "".join(buffer)
            buffer.clear()
            if not raw.isspace():
                page.add(raw, stack[-1], link_size, bold_size, pre > 0, code_size)
            link_size = bold_size = code_size = 0

    def enter(tag: str, attributes: str) -> None:
        above = stack[-1]
        mask = TAG_BIT.get(tag, 0)
        if attributes:
            mask |= attribute_signals(attributes, tag not in TITLED)
        stack.append(len(name))
        page.open(above, tag, mask, len(stack) - 1, paths.setdefault((path[above], tag, mask), len(paths)))

    for closing, tag, attributes, text in TOKEN.findall(html):
        if skipped:
            if tag == skipped:
                skip_depth += -1 if closing else 1
            if skip_depth:
                aloud.append(text)
                continue
            skipped, skipped_at = "", len(buffer)
        else:
            kind = KIND.get(tag, _UNKNOWN)
            look = _look(attributes) if attributes and kind != _IMAGE and not closing else _PLAIN
            if look and (look == _READ_ALOUD or (look <= _SILENT and kind not in (_CONTAINER, _PRE, _RULE, _BREAK))):
                if tag in VOID:
                    look = _PLAIN
                else:
                    # The same words are often there twice: for the eye with effects, and to be read aloud.
                    if skipped_at == len(buffer) and {look, skipped_look} == {_READ_ALOUD, _SILENT}:
                        if skipped_look == _READ_ALOUD:
                            buffer.extend(aloud)
                        elif any(map(str.strip, aloud)):
                            look = _PLAIN
                    if look:
                        skipped, skip_depth, skipped_look, aloud = tag, 1, look, [text]
                        continue
            if pre:
                if tag == pre_tag:
                    nesting += -1 if closing else 1
                if not nesting:
                    flush()
                    last[stack.pop()] = len(done)
                    pre, pre_tag = 0, ""
                    lines.clear()
                elif kind == _BREAK:
                    buffer.append("\n")
                elif kind == _BUTTON and not closing:
                    skipped, skip_depth, skipped_look, aloud = tag, 1, _UNSEEN, []
                    continue
                elif kind in (_CONTAINER, _PRE) and tag not in TABLE_PARTS:
                    if not closing:
                        if buffer and not buffer[-1].endswith("\n"):
                            buffer.append("\n")
                        lines.append(len(buffer))
                    else:
                        start = lines.pop() if lines else 0
                        if len(buffer) == start or not buffer[-1].endswith("\n"):
                            buffer.append("\n")
                        between_lines = 1
                elif kind == _RAISED:
                    raised, raised_link = _raise(buffer, closing, raised, raised_link, link_size)
                if text and not (between_lines and text.isspace()):
                    buffer.append(text)
                    between_lines = 0
                continue
            if look >= _SPACED and (
                look == _LISTING or kind == _CODE or (kind <= _CONTAINER and _CODE_NAME.search(attributes))
            ):
                kind = _PRE
            if kind == _INLINE:
                pass
            elif kind == _LINK:
                link = not closing
            elif kind == _BOLD:
                bold = not closing
            elif kind == _CODE:
                code = not closing
            elif kind == _IMAGE:
                if alt := _alt(attributes, buffer):
                    buffer.append(alt)
            elif kind == _BREAK and (code or not (buffer and buffer[-1] == BREAK)):
                buffer.append(BREAK)
            elif kind == _RAISED:
                raised, raised_link = _raise(buffer, closing, raised, raised_link, link_size)
            elif kind == _UNKNOWN and not closing:
                pending.append((tag, attributes))
            elif kind == _UNKNOWN and pending and pending[-1][0] == tag:
                pending.pop()
            elif (
                kind == _BUTTON and (name[stack[-1]] in TEXT_HOLDERS if not closing else name[stack[-1]] != "button")
            ) or (kind == _UNKNOWN and name[stack[-1]] != tag):
                pass
            else:  # a border of a container, a rule, or an empty line
                flush()
                if kind in (_BREAK, _RULE):
                    pass
                elif closing:
                    if len(stack) > 1:  # rarely, a quote in an attribute's name hides tags from the pattern
                        last[stack.pop()] = len(done)
                else:
                    for unknown, its in pending:  # an element with block elements in it is one of them
                        enter(unknown, its)
                    pending.clear()
                    enter(tag, attributes)
                    if kind == _PRE:
                        pre, pre_tag, nesting, between_lines, raised = 1, tag, 1, 0, -1
        if text and not (link and text in ANCHOR_SIGNS) and (buffer or pre or not text.isspace()):
            buffer.append(text)
            if link:
                link_size += len(text)
            if bold:
                bold_size += len(text)
            if code:
                code_size += len(text)
    flush()
    for number in stack:
        last[number] = len(done)


def _raise(buffer: list[str], closing: str, raised: int, raised_link: int, link_size: int) -> tuple[int, int]:
    """Begin or end raised text. At its end, write an exponent as ``^2`` or ``^(n+1)``; return where open ones begin."""
    if not closing:
        return len(buffer), link_size
    if 0 < raised < len(buffer) and link_size == raised_link:
        power = "".join(buffer[raised:]).strip()
        before = buffer[raised - 1]
        if (
            len(power) <= 12
            and power.lower() not in _ORDINALS
            and _EXPONENT.match(power)
            and (_NUMBER_END.search(before[-30:]) or _SYMBOL_END.search(before[-30:]))
        ):
            plain = power.lstrip("-+\u2212\u2013").replace(".", "").isalnum()
            buffer[raised:] = [f"^{power}" if plain else f"^({power})"]
    return -1, 0


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
