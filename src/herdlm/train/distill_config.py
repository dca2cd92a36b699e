"""Recipe keys of learning from a teacher."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from herdlm.base.recipe import Section


class TeacherConfig(Section):
    """How a model learns a teacher's distribution of the next token in addition to the token itself."""

    top_k: int = Field(
        64,
        ge=1,
        description="how many of the teacher's most likely tokens are stored per target, 6 or 8 bytes each; the "
        "probability of all others is stored as their sum",
    )
    weight: float = Field(
        0.5, gt=0, le=1, description="share of the teacher in the loss; the token itself has the rest"
    )
    temperature: float = Field(1.0, gt=0, description="applied to both distributions where they are compared")


class DistillConfig(TeacherConfig):
    """Learning from a teacher in pre-training: who teaches, and when."""

    teacher: str | None = Field(
        None, description="the herd model that teaches, in a whole run; `herdlm train` takes a folder instead"
    )
    steps: Literal["all", "anneal"] = Field("all", description="the steps of pre-training that use the teacher")
