"""Drops pages whose owners ask so: by the robots meta tag of the page, or by X-Robots-Tag in its HTTP head."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep

HEAD_BYTES = 1 << 16
DIRECTIVES = ("noai", "noimageai", "noindex", "nofollow", "noarchive", "nosnippet", "none")
_META = re.compile(rb"<!--[\s\S]*?-->|<meta\b[^>]{0,1000}>", re.IGNORECASE)
_NAME = re.compile(rb"\bname\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_CONTENT = re.compile(rb"\bcontent\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_AGENT = re.compile(r"(?:^|,)\s*(?!unavailable_after|max-)([\w.-]+)\s*:", re.IGNORECASE)
_WORD = re.compile(r"[a-z-]+")


class RobotsConfig(Section):
    """Which wishes of a page's owner are followed."""

    drop: tuple[str, ...] = Field(
        ("noai",), description="drop pages with these directives for all robots: noai, noindex, noarchive, ..."
    )

    @field_validator("drop")
    @classmethod
    def _directives_are_known(cls, drop: tuple[str, ...]) -> tuple[str, ...]:
        for directive in drop:
            if directive not in DIRECTIVES:
                raise ValueError(f"{directive!r} is no directive; choose from {', '.join(DIRECTIVES)}")
        return drop


class Robots(PageStep):
    """Drops pages by the directives of their owners. The reason is the directive."""

    name, prose_only = "robots", True
    settings: RobotsConfig

    def run(self, batch: Batch) -> Outcome:
        return Outcome([self._reason(*of) for of in zip(batch["payload"], batch["robots"], strict=True)])

    def _reason(self, payload: bytes, header: str) -> str | None:
        found = directives(payload, header) if self.settings.drop else set()
        return next((directive for directive in self.settings.drop if directive in found), None)


def directives(payload: bytes, header: str) -> set[str]:
    """Return the directives for all robots of a page and of its X-Robots-Tag. ``none`` is also noindex and nofollow."""
    agent = _AGENT.search(header)
    found = set(_WORD.findall((header[: agent.start()] if agent else header).lower()))
    head = payload[:HEAD_BYTES]
    if b"robots" in head.lower():
        for tag in _META.findall(head):
            name, content = _NAME.search(tag), _CONTENT.search(tag)
            if name and content and name[1].lower() == b"robots" and not tag.startswith(b"<!"):
                value = content[1] or content[2] or content[3] or b""
                found |= set(_WORD.findall(value.decode("latin-1").lower()))
    return found | ({"noindex", "nofollow"} if "none" in found else set())
