"""What the processes of a run tell each other around a checkpoint. Without a group, this process is the only one."""

from __future__ import annotations

import torch
import torch.distributed as dist


def problem_of_any(problem: str | None, group: dist.ProcessGroup | None = None) -> str | None:
    """The problem of the first process that has one, on all processes of the group (None: the default group)."""
    if not dist.is_initialized():
        return problem
    problems: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(problems, problem, group=group)
    return next((each for each in problems if each is not None), None)


def step_seconds_by_rank(seconds: float) -> list[float]:
    """Every process's own seconds for a step, to find a slow one. All processes call this."""
    if not dist.is_initialized():
        return [seconds]
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    mine = torch.tensor([seconds], device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return [round(float(t), 4) for t in everyone]
