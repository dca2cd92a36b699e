"""The section of a recipe that asks for standard tasks."""

from __future__ import annotations

from pydantic import Field, field_validator

from herdlm.base.recipe import Section
from herdlm.evaluate.task import load_task


class EvaluateConfig(Section):
    """The section [evaluate]: standard tasks on which a run measures its finished models."""

    tasks: tuple[str, ...] = Field(
        min_length=1, description="names of built-in tasks, or task files NAME.toml, relative to the recipe"
    )
    data: tuple[str, ...] = Field(
        min_length=1, description="folders with the tasks' files, or files of items, relative to the recipe"
    )
    start: bool = Field(False, description="also measure the model that post-training starts from")
    control: bool = Field(False, description="also measure the control of the rounds")
    limit: int | None = Field(None, ge=1, description="the first items of each task only")
    shots: int | None = Field(None, ge=0, description="worked examples before each question, in place of the task's")
    chat: bool | None = Field(None, description="ask in a chat, or as plain text; by default as tasks say")

    @field_validator("tasks")
    @classmethod
    def _tasks_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        tasks = [load_task(name).name for name in names]
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks name one twice: {', '.join(tasks)}")
        return names
