"""Recipe keys of the token sets that pre-training and its measurements read."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, field_validator

from herdlm.base.recipe import Section
from herdlm.curate.orthography import LANGUAGES
from herdlm.tokens.sources import SourceConfig, check_sources


class TokensConfig(Section):
    """How documents are divided into sets of tokens: sources, validation and the annealing set."""

    validation_percent: float = Field(
        5.0, gt=0, lt=50, description="percentage of documents that are held out of all training"
    )
    anneal_percent: float = Field(
        30.0, gt=0, le=100, description="percentage of training documents, the best by quality, that annealing reads"
    )
    max_text_megabytes: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="by language: the most text to keep; the rest is dropped at random"
    )

    @field_validator("max_text_megabytes")
    @classmethod
    def _languages_exist(cls, limits: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(limits) - LANGUAGES):
            raise ValueError(f"language {unknown[0]!r} is not known; choose from {', '.join(sorted(LANGUAGES))}")
        return limits

    sources: dict[str, SourceConfig] = Field(
        default_factory=dict, description="by name; by default all documents form one source, web"
    )

    @field_validator("sources")
    @classmethod
    def _sources_are_disjoint(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        check_sources(sources)
        return sources

    skill_documents: int = Field(0, ge=0, description="how many short documents to generate that show a skill")
    skill_context_share: float = Field(
        0.5, ge=0, le=1, description="share of the skill documents that follow a piece of web text"
    )
