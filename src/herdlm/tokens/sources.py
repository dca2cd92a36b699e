"""Token sources: which documents belong to each, by language, by knowledge domain, or by both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations

from pydantic import Field, model_validator

from herdlm.base.recipe import Section

WEB = "web"
ANNEAL, VALIDATION = "-anneal", "-validation"
SKILLS = "skills"


class SourceConfig(Section):
    """The documents of one source. A source without languages and domains takes what the others leave."""

    languages: tuple[str, ...] = Field((), description="as curation names them; default: any")
    domains: tuple[str, ...] = Field((), description="knowledge domains, as curation names them; default: any")
    anneal_percent: float | None = Field(
        None, gt=0, le=100, description="overrides tokens.anneal_percent for this source"
    )

    @property
    def is_rest(self) -> bool:
        """Whether it takes what no other source takes."""
        return not (self.languages or self.domains)

    @model_validator(mode="after")
    def _each_once(self) -> SourceConfig:
        for key, values in (("languages", self.languages), ("domains", self.domains)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names one twice: {', '.join(values)}")
        return self

    def takes(self, language: str, domain: str) -> bool:
        """Whether the source names a document's language and domain."""
        fits_language = not self.languages or language in self.languages
        return not self.is_rest and fits_language and (not self.domains or domain in self.domains)


def source_of(sources: Mapping[str, SourceConfig], language: str, domain: str) -> str | None:
    """The source that a document of this language and domain belongs to, or None."""
    for name, source in sources.items():
        if source.takes(language, domain):
            return name
    return next((name for name, source in sources.items() if source.is_rest), None)


def check_sources(sources: Mapping[str, SourceConfig]) -> None:
    """Check that no document can belong to two sources, and that no name of a shard is used twice.

    Raises:
        ValueError: with the sources and what both would take.
    """
    for name in sources:
        taken = name in (WEB, SKILLS) or name.startswith(f"{WEB}-") or name.endswith((ANNEAL, VALIDATION))
        if taken or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"{name} is no name for a source: use letters, digits, '.', '_' and '-', not {WEB}, {SKILLS} or an "
                f"ending {ANNEAL} or {VALIDATION}"
            )
    rest = [name for name, source in sources.items() if source.is_rest]
    if len(rest) > 1:
        raise ValueError(f"{rest[0]} and {rest[1]} both take what the others leave: give one languages or domains")
    for (first, one), (second, other) in combinations(sources.items(), 2):
        if one.is_rest or other.is_rest:
            continue
        both = [_overlap(one.languages, other.languages), _overlap(one.domains, other.domains)]
        if all(part is not None for part in both):
            shared = " and ".join(
                f"{kind} {', '.join(part) if part else '(any)'}"
                for kind, part in zip(("language", "domain"), both, strict=True)
                if part is not None
            )
            raise ValueError(f"{first} and {second} both take documents of {shared}: a document has one source")


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    """The values that both name; () means any, None nothing."""
    if not one or not other:
        return one or other
    return tuple(value for value in one if value in other) or None


def shard_names(sources: Mapping[str, SourceConfig]) -> tuple[str, ...]:
    """The text shards that a mix can read."""
    return tuple(f"{name}{part}" for name in sources or (WEB,) for part in ("", ANNEAL))
