"""Finds the encoding that the start of a page declares (HTML Standard, 13.2.3.3, "prescan a byte stream")."""

from __future__ import annotations

import re

from herdlm.curate.encodings.labels import name_of

PRESCAN_BYTES = 1024
_TAG = re.compile(rb"<(?:(!--)|(meta)(?=[\t\n\f\r /])|(/?[a-z])|[!/?])", re.IGNORECASE)
_NAME_END = re.compile(rb"[\t\n\f\r >]")
_ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*([^\t\n\f\r />][^\t\n\f\r />=]*)"
    rb"(?:[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\t\n\f\r >\"'][^\t\n\f\r >]*))?)?"
)
_CONTENT = re.compile(
    rb"charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\"'\t\n\f\r ;][^\t\n\f\r ;]*))", re.IGNORECASE
)
_XML = re.compile(rb"<\?xml\b[^>]*?\bencoding\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


def prescan(payload: bytes) -> str | None:
    """Return the encoding that a page's ``<meta>`` or XML declaration names, or None. Comments do not count."""
    data = payload[:PRESCAN_BYTES]
    at = 0
    while (tag := _TAG.search(data, at)) is not None:
        at = tag.end()
        if tag[1]:
            end = data.find(b"-->", tag.start() + 2)
            at = end + 3 if end >= 0 else len(data)
        elif tag[2]:
            attributes, at = _attributes(data, at)
            if found := _declared(attributes):
                return found
        elif tag[3]:
            name_end = _NAME_END.search(data, at)
            _, at = _attributes(data, name_end.start() if name_end else len(data))
        else:
            end = data.find(b">", at)
            at = end + 1 if end >= 0 else len(data)
    xml = _XML.match(data)
    return _of_a_page(xml[1] or xml[2] or b"") if xml else None


def _attributes(data: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """Return the attributes of a tag from ``at`` on, each name's first, and where they end."""
    found: dict[bytes, bytes] = {}
    while (match := _ATTRIBUTE.match(data, at)) is not None:
        at = match.end()
        found.setdefault(match[1].lower(), next((value for value in match.groups()[1:] if value is not None), b""))
    return found, at


def _declared(attributes: dict[bytes, bytes]) -> str | None:
    """Return the encoding that the attributes of a ``<meta>`` name: ``charset``, or ``content`` with its pragma."""
    if b"charset" in attributes:
        return _of_a_page(attributes[b"charset"])
    if attributes.get(b"http-equiv", b"").lower() != b"content-type":
        return None
    content = _CONTENT.search(attributes.get(b"content", b""))
    return _of_a_page(content[1] or content[2] or content[3] or b"") if content else None


def _of_a_page(label: bytes) -> str | None:
    name = name_of(label.decode("latin-1"))
    if name in ("utf-16le", "utf-16be"):
        return "utf-8"  # it was read as ASCII
    return "windows-1252" if name == "x-user-defined" else name
