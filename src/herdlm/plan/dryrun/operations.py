"""FLOPs by operation, and collectives by kind and group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.plan.dryrun.observe import size_of, tensors_in
from herdlm.plan.dryrun.private import group_of
from herdlm.plan.dryrun.report import Collective, Flops

_aten: Any = torch.ops.aten
# Names, not operators: a version of torch may lack some.
PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "_scaled_mm": (0, 1)}
ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": (4, 0),
    "_scaled_dot_product_flash_attention_for_cpu_backward": (10, 1),
    "tiled_attention": (4, 0),
    "tiled_attention_backward": (10, 1),
}
COLLECTIVES = {
    "all_gather_into_tensor": "all-gather",
    "_allgather_base_": "all-gather",
    "allgather_": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "_reduce_scatter_base_": "reduce-scatter",
    "all_reduce": "all-reduce",
    "allreduce_": "all-reduce",
    "broadcast_": "broadcast",
    "gather_": "gather",
    "scatter_": "scatter",
    "alltoall_base_": "all-to-all",
    "send": "send",
    "recv_": "receive",
    "barrier": "barrier",
}


class FlopMeter:
    """Counts the FLOPs of matrix products and attention, two for each multiplication with its addition.

    A query attends to the keys up to its own; products of its backward pass are five where the forward pass has two.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.flops: dict[str, int] = {}

    def seen(self, operation: Any, args: Sequence[Any], named: dict[str, Any], result: Any) -> None:
        """See :class:`herdlm.plan.dryrun.observe.Meter`."""
        name = operation._schema.name.partition("::")[2]
        if name in PRODUCTS:
            first, second = (args[at].shape for at in PRODUCTS[name])
            flops = 2 * first.numel() * second[-1]
        elif name in ATTENTION:
            each, at = ATTENTION[name]
            q = args[at]
            heads, size = (q.shape[1], q.shape[-1])
            flops = each * heads * size * (_tile_pairs(args[-3 + at]) if "tiled" in name else _pairs(q, args[at + 1]))
            name = "attention backward" if at else "attention"
        else:
            return
        self.counts[name] = self.counts.get(name, 0) + 1
        self.flops[name] = self.flops.get(name, 0) + flops

    def result(self) -> tuple[Flops, ...]:
        """What was counted, by operation."""
        return tuple(Flops(name, self.counts[name], self.flops[name]) for name in sorted(self.counts))


def _pairs(q: Tensor, k: Tensor) -> int:
    """Pairs of a query and a key that a causal mask keeps, of q [B, H, n, C] and k [B, K, m, C]; the last see all."""
    queries, keys = q.shape[2], k.shape[2]
    return q.shape[0] * (queries * keys - queries * (queries - 1) // 2)


def _tile_pairs(tiles: Tensor) -> int:
    """Pairs of tiles (first query, end of queries, first key, end of keys); the last queries see all keys."""
    return sum(
        (end - begin) * (last - first) - (end - begin) * (end - begin - 1) // 2
        for begin, end, first, last in tiles.tolist()
    )


class TrafficMeter:
    """Counts collectives and transfers.

    Args:
        names: of groups, by torch's name of them.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.counts: dict[tuple[str, str, int, str], list[int]] = {}

    def seen(self, operation: Any, args: Sequence[Any], named: dict[str, Any], result: Any) -> None:
        """See :class:`herdlm.plan.dryrun.observe.Meter`."""
        namespace, _, name = operation._schema.name.partition("::")
        if namespace not in ("c10d", "_c10d_functional") or name == "wait_tensor":
            return
        if name not in COLLECTIVES:
            raise InputError(f"a dry run does not know the collective {name}", "Report it with the recipe")
        group = group_of([*args, *named.values()])
        tensors = list(tensors_in([args, named, result]))
        # The largest is the whole: what a gather makes, or a scatter reads. A list of parts adds up to it.
        largest = max((size_of(tensor) for tensor in tensors), default=0)
        if name in ("allgather_", "gather_") and group is not None:
            largest *= group.size()
        kind = str(tensors[0].dtype).removeprefix("torch.") if tensors else ""
        known = self.names.get(group.group_name, "other") if group is not None else "other"
        key = (COLLECTIVES[name], known, group.size() if group is not None else 0, kind)
        count = self.counts.setdefault(key, [0, 0])
        count[0] += 1
        count[1] += largest

    def result(self) -> tuple[Collective, ...]:
        """What was counted, by kind and group."""
        return tuple(Collective(*key, *count) for key, count in sorted(self.counts.items()))


def default_group_name() -> str:
    """torch's name of the group of all processes."""
    assert dist.group.WORLD is not None
    return dist.group.WORLD.group_name
