"""How classifiers are trained. Importing it needs none of the curation libraries."""

from __future__ import annotations

from pydantic import Field

from herdlm.base.recipe import Section


class ClassifierConfig(Section):
    """How a linear classifier is trained: see ``linear.py``."""

    bits: int = Field(20, ge=8, le=26, description="2 ** bits buckets for words and word pairs")
    max_words: int = Field(2_000, ge=1, description="words of a text that are read, from the start")
    min_texts: int = Field(2, ge=1, description="training texts that a feature must occur in to count")
    epochs: int = Field(5, ge=1)
    rate: float = Field(0.5, gt=0, description="AdaGrad's learning rate")
