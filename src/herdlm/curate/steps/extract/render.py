"""Renders content blocks as text: paragraphs apart, list items and lines together, a row's cells on one line."""

from __future__ import annotations

from collections.abc import Sequence

from herdlm.curate.steps.extract.blocks import Blocks

LISTS = frozenset(("ul", "ol", "dl", "menu", "dir"))
CELLS = frozenset(("td", "th"))
LONGEST_CELL = 60  # words; longer cells are columns of a page laid out as a table
INDENT = "  "
_PARAGRAPH, _LINE, _CELL, _SPACE = "\n\n", "\n", "\t", " "


def render(page: Blocks, kept: Sequence[int]) -> str:
    """Return the text of a page's blocks ``kept``, in order, without markers.

    Items of nested lists are indented by two spaces per level, cells of a table row are separated by tabs, and
    preformatted text keeps its spaces and line ends.
    """
    places = [Place(page, block) for block in kept]
    pieces: list[str] = []
    for number, block in enumerate(kept):
        place = places[number]
        if number:
            pieces.append(_between(places[number - 1], place))
        text = page.text[block]
        if place.level and not place.row and not page.preformatted[block]:
            text = INDENT * place.level + text.replace("\n", "\n" + INDENT * place.level)
        pieces.append(text)
    return "".join(pieces)


def _between(before: Place, here: Place) -> str:
    if here.row and here.row == before.row:
        return _CELL if here.cell != before.cell else _SPACE
    if here.table and here.table == before.table and here.row and before.row:
        return _LINE
    if here.outer_list and here.outer_list == before.outer_list and not here.preformatted and not before.preformatted:
        return _LINE
    return _PARAGRAPH


class Place:
    """A block's containers: its cell, row, table and outermost list (0 for none), and the depth of its list."""

    __slots__ = ("cell", "level", "outer_list", "preformatted", "row", "table")

    def __init__(self, page: Blocks, block: int) -> None:
        self.cell = self.row = self.table = self.outer_list = 0
        self.level = -1
        self.preformatted = page.preformatted[block]
        name, parent = page.name, page.parent
        at = page.container[block]
        data = not self.preformatted
        while at != parent[at]:
            tag = name[at]
            if tag in LISTS:
                self.outer_list = at
                self.level += tag != "dl"
            elif not self.table:
                if tag in CELLS and not self.cell:
                    self.cell = at
                    data = data and sum(page.words[page.first[at] : page.last[at]]) <= LONGEST_CELL
                elif tag == "tr" and self.cell and not self.row:
                    self.row = at if data else 0
                elif tag == "table":
                    self.table = at
            at = parent[at]
        self.level = max(self.level, 0)
