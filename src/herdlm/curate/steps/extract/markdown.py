"""Renders content blocks as Markdown: headings, lists, tables, quotations, listings; no links and no emphasis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from herdlm.curate.steps.extract.blocks import Blocks
from herdlm.curate.steps.extract.render import INDENT, LISTS, Place

HEADINGS = {f"h{level}": level for level in range(1, 7)}
FENCE = "```"


def render_markdown(page: Blocks, kept: Sequence[int]) -> str:
    """Return the Markdown of a page's blocks ``kept``, in order."""
    places = [(block, Place(page, block)) for block in kept]
    pieces: list[str] = []
    numbers: dict[int, int] = {}  # of the items of ordered lists
    begun: set[int] = set()
    before: Place | None = None
    for table, group in groupby(places, lambda one: one[1].table if one[1].row else 0):
        if table:
            own = list(group)
            written = [(own[0][1], _table(page, own))]
        else:
            written = [(place, _block(page, block, numbers, begun)) for block, place in group]
        for place, text in written:
            if before is not None:
                together = place.outer_list and place.outer_list == before.outer_list and not table
                pieces.append("\n" if together and FENCE not in text else "\n\n")
            pieces.append(text)
            before = place
    return "".join(pieces)


def _table(page: Blocks, own: Sequence[tuple[int, Place]]) -> str:
    lines: list[str] = []
    for _, row in groupby(own, lambda one: one[1].row):
        cells = [
            " ".join(page.text[block] for block, _ in cell).replace("\n", " ").replace("|", "\\|")
            for _, cell in groupby(row, lambda one: one[1].cell)
        ]
        lines.append(f"| {' | '.join(cells)} |")
        if len(lines) == 1:
            lines.append("|" + " --- |" * len(cells))
    return "\n".join(lines)


def _block(page: Blocks, block: int, numbers: dict[int, int], begun: set[int]) -> str:
    text, at = page.text[block], page.container[block]
    heading = quotes = 0
    item, lists = 0, []
    while at != page.parent[at]:
        tag = page.name[at]
        heading = heading or HEADINGS.get(tag, 0)
        quotes += tag == "blockquote"
        if tag == "li" and not item:
            item = at
        if tag in LISTS and tag != "dl":
            lists.append(at)
        at = page.parent[at]
    if page.preformatted[block]:
        fence = FENCE
        while fence in text:
            fence += "`"
        text = f"{fence}\n{text}\n{fence}"
    elif heading:
        text = f"{'#' * heading} {' '.join(text.split())}"
    if item and lists:
        mark = INDENT
        if item not in begun:
            begun.add(item)
            numbers[lists[0]] = numbers.get(lists[0], 0) + 1
            mark = f"{numbers[lists[0]]}. " if page.name[lists[0]] == "ol" else "- "
        indent = INDENT * (len(lists) - 1)
        text = indent + mark + text.replace("\n", "\n" + indent + " " * len(mark))
    if quotes:
        text = "> " * quotes + text.replace("\n", "\n" + "> " * quotes)
    return text
