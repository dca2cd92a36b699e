"""The keys of the step ``extract``, apart from it, since reading a recipe must not need a parser of HTML."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from herdlm.base.recipe import Section

PageType = Literal["article", "documentation", "service", "forum", "collection", "listing", "product"]
PAGE_TYPES: tuple[PageType, ...] = get_args(PageType)


class ExtractConfig(Section):
    """How web pages become text, and which types of pages to keep."""

    keep_types: tuple[PageType, ...] = Field((), description="types of web pages to keep; none: all")
    drop_types: tuple[PageType, ...] = Field((), description="types of web pages to drop")
    markdown: bool = Field(False, description="write headings, lists, tables and listings as Markdown")

    @model_validator(mode="after")
    def _a_type_is_kept_or_dropped(self) -> ExtractConfig:
        if both := sorted(set(self.keep_types) & set(self.drop_types)):
            raise ValueError(f"{both[0]} is in keep_types and in drop_types: name it in one")
        return self

    def wants(self, page_type: str) -> bool:
        """Return whether pages of a type are kept; "" is no web page, and is."""
        if not page_type:
            return True
        return page_type not in self.drop_types and (not self.keep_types or page_type in self.keep_types)
