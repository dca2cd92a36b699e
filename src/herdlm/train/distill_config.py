"""Recipe keys of learning from a teacher."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section


class DistillConfig(Section):
    """How a model learns from a teacher's distribution of the next token, beside the token itself."""

    teacher: str | None = Field(
        None, description="the model of the herd that teaches in a whole run; `herdlm train` is given a folder instead"
    )
    steps: Literal["all", "anneal"] = Field("all", description="which steps of pre-training the teacher is read in")
    top_k: int = Field(
        64,
        ge=1,
        description="tokens of the teacher's that are kept at every target, 6 or 8 bytes each; what it "
        "leaves to all others is kept as their sum. As many as the vocabulary has keep all",
    )
    weight: float = Field(0.5, gt=0, le=1, description="of the teacher in the loss; the token itself has the rest")
    temperature: float = Field(1.0, gt=0, description="of both distributions where they are compared")
