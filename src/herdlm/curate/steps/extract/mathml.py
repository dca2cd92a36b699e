"""Writes MathML on one line, with the brackets that its layout stands for: ``(a+b)/(2c)``, ``∑_(i=1)^n``."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

MAX_DEPTH = 60  # deeper parts become plain text
TOKENS = frozenset(("mi", "mn", "mo", "mtext", "ms"))
SILENT = frozenset(("annotation", "annotation-xml", "mphantom", "mprescripts", "none", "maligngroup", "malignmark"))
BIG = frozenset("∑∏∐∫∬∭∮\u22c3\u22c2\u22c1\u22c0⨁⨂")
ACCENTS = {
    **dict.fromkeys("\u00af\u203e\u02c9", "\u0304"),
    **dict.fromkeys("^\u02c6", "\u0302"),
    **dict.fromkeys("~\u02dc", "\u0303"),
    **dict.fromkeys("\u2192\u20d7", "\u20d7"),
    **dict.fromkeys("\u02d9.", "\u0307"),
    "\u00a8": "\u0308",
}  # what stands over a letter -> what combines with it
_UNSEEN = str.maketrans("", "", "\u2061\u2062\u2063\u2064\u200b")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*$")


def linear(math: LexborNode) -> str:
    """Return a formula's MathML as text."""
    return " ".join(_write(math, 0).split())


def _write(node: LexborNode, depth: int) -> str:  # noqa: PLR0911 - a case per element
    tag = node.tag
    if tag in SILENT:
        return ""
    if tag in TOKENS or depth > MAX_DEPTH:
        text = " ".join((node.text() or "").split()).translate(_UNSEEN)
        return f" {text} " if tag == "mtext" and len(text) > 1 else text
    children = list(node.iter(include_text=False))
    parts = [_write(child, depth + 1) for child in children if child.tag not in SILENT]
    if tag == "mspace":
        return " "
    if tag == "msqrt":
        return f"√({''.join(parts)})" if not _atomic("".join(parts)) else f"√{''.join(parts)}"
    if tag == "mfenced":
        separators = (node.attributes.get("separators", ",") or "").strip()
        separator = separators[:1]
        opening, closing = node.attributes.get("open", "("), node.attributes.get("close", ")")
        return f"{opening or ''}{separator.join(parts)}{closing or ''}"
    if tag == "mtable":
        return f"[{'; '.join(parts)}]"
    if tag in ("mtr", "mlabeledtr"):
        return ", ".join(parts)
    if tag == "maction":
        return parts[0] if parts else ""
    return _scripted(tag or "", parts)


def _scripted(tag: str, parts: list[str]) -> str:  # noqa: PLR0911 - a case per element
    if len(parts) == 2:
        base, other = parts
        if tag == "mfrac":
            return f"{_grouped(base)}/{_grouped(other)}"
        if tag == "mroot":
            return f"√[{other.strip()}]({base})"
        if tag == "mover" and other.strip() in ACCENTS and len(base.strip()) == 1:
            return base.strip() + ACCENTS[other.strip()]
        if tag in ("msup", "mover"):
            return f"{_base(base)}^{_grouped(other)}{_space(base)}" if other.strip() else base
        if tag in ("msub", "munder"):
            return f"{_base(base)}_{_grouped(other)}{_space(base)}" if other.strip() else base
    if len(parts) == 3 and tag in ("msubsup", "munderover"):
        base, low, high = parts
        low = f"_{_grouped(low)}" if low.strip() else ""
        high = f"^{_grouped(high)}" if high.strip() else ""
        return f"{_base(base)}{low}{high}{_space(base)}"
    return "".join(parts)


def _atomic(text: str) -> bool:
    return len(text) <= 1 or bool(_NUMBER.match(text))


def _grouped(text: str) -> str:
    text = text.strip()
    return text if _atomic(text) or _bracketed(text) else f"({text})"


def _base(text: str) -> str:
    """Bracket a base of several parts; a name such as ``sin`` or ``lim`` is one."""
    text = text.strip()
    return text if text.isalnum() or _atomic(text) or text[-1:] in ")]}|" else f"({text})"


def _space(base: str) -> str:
    return " " if base.strip() in BIG else ""


def _bracketed(text: str) -> bool:
    """Return whether the first bracket closes at the end."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return at == len(text) - 1
    return False
