"""HTML that is safe by construction: plain text is always escaped, only :class:`Html` is passed through."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Html:
    """Finished markup."""

    text: str


Child: TypeAlias = "Html | str | int | Iterable[Child] | None"

_VOID = {"meta", "br", "path", "line", "rect", "link"}
# Control characters are not allowed in HTML; they are shown as symbols (from U+2400 on).
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD) | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


def escape(text: str) -> str:
    """Escape text for content and attributes."""
    return html.escape(text.translate(_VISIBLE), quote=True)


def render(child: Child) -> str:
    """Render a child as markup."""
    if child is None:
        return ""
    if isinstance(child, Html):
        return child.text
    if isinstance(child, str):
        return escape(child)
    if isinstance(child, int):
        return f"{child:,}"
    return "".join(render(part) for part in child)


def tag(name: str, /, *children: Child, **attributes: str | int | float | None) -> Html:
    """An element. ``class_`` becomes class, other underscores become hyphens; attributes that are None are omitted."""
    written = "".join(
        f' {"class" if key == "class_" else key.replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>" if name in ("meta", "br", "link") else f"<{name}{written}/>")
    return Html(f"<{name}{written}>{render(children)}</{name}>")


def foreign(text: str) -> Html:
    """Text of a model or a web page, isolated so that its writing direction does not affect what is around it."""
    return tag("bdi", text, class_="foreign", dir="auto")


def table(
    caption: str, header: Iterable[Child], rows: Iterable[Iterable[Child]], *, text_columns: Iterable[int] = (0,)
) -> Html:
    """A table whose first column names its rows; columns outside ``text_columns`` hold numbers."""
    left = set(text_columns)

    def cell(kind: str, column: int, child: Child) -> Html:
        scope = {"th": "col", "row": "row"}.get(kind)
        style = None if column in left else "number"
        return tag("td" if kind == "td" else "th", child, scope=scope, class_=style)

    body = [
        tag("tr", [cell("row" if column == 0 else "td", column, child) for column, child in enumerate(row)])
        for row in rows
    ]
    head = tag("tr", [cell("th", column, child) for column, child in enumerate(header)])
    whole = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", body))
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)
