"""The processes as one mesh, with every group that a step communicates over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from herdlm.parallel.config import Sizes

Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class Mesh:
    """One process's place in the layout.

    Dimensions are laid out innermost first [TP, CP, PP, DP] (Llama 3 report, section 3.3.2): consecutive ranks are
    tensor-parallel partners, which communicate most.
    """

    sizes: Sizes
    device: torch.device
    tp: DeviceMesh
    pp: DeviceMesh
    shard: DeviceMesh  # over which FSDP shards: dp_shard x cp
    data: DeviceMesh  # the argument of fully_shard: shard alone, or dp_replicate x shard
    context: dist.ProcessGroup
    batch: dist.ProcessGroup  # all ranks with parts of one batch: dp_replicate x dp_shard x cp
    pipes: dict[tuple[Direction, bool], dist.ProcessGroup]
    cp_rank: int
    dp_rank: int
    batch_rank: int

    @property
    def tp_rank(self) -> int:
        """Rank in the tensor-parallel group."""
        return self.tp.get_local_rank()

    @property
    def pp_rank(self) -> int:
        """Rank in the pipeline."""
        return self.pp.get_local_rank()


def make_mesh(sizes: Sizes, device: torch.device) -> Mesh:
    """The mesh of all processes; every process of the default group calls this together."""
    shape = (sizes.dp_replicate, sizes.dp_shard, sizes.pp, sizes.cp, sizes.tp)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("dp_replicate", "dp_shard", "pp", "cp", "tp"))
    shard = mesh["dp_shard", "cp"]._flatten("shard")
    batch = mesh["dp_replicate", "dp_shard", "cp"]._flatten("batch")
    data = DeviceMesh._concatenate([mesh["dp_replicate"], shard]) if sizes.dp_replicate > 1 else shard
    rank_of = mesh.get_local_rank
    return Mesh(
        sizes=sizes,
        device=device,
        tp=mesh["tp"],
        pp=mesh["pp"],
        shard=shard,
        data=data,
        context=mesh["cp"].get_group(),
        batch=batch.get_group(),
        pipes=_pipes(mesh) if sizes.pp > 1 else {},
        cp_rank=rank_of("cp"),
        dp_rank=rank_of("dp_replicate") * sizes.dp_shard + rank_of("dp_shard"),
        batch_rank=batch.get_local_rank(),
    )


def _pipes(mesh: DeviceMesh) -> dict[tuple[Direction, bool], dist.ProcessGroup]:
    """A group for each direction, and one more each for the wrap from the last rank to the first.

    On each group a pair of ranks sends one way only, in the order of the schedule, so no transfer waits for one that is
    queued behind it.
    """
    ranks = mesh["pp"].mesh.tolist()
    directions: tuple[Direction, ...] = ("forward", "backward")
    # Only its members make a group: making those of all pipelines takes minutes with 16 thousand processes.
    return {
        (direction, wraps): dist.new_group(ranks, use_local_synchronization=True)
        for direction in directions
        for wraps in (False, True)
    }
