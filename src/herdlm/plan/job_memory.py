"""Memory of a job's step on the GPU that needs most."""

from __future__ import annotations

from herdlm.plan.job import Job
from herdlm.plan.kernels import BF16, FP32
from herdlm.plan.stacks import Stack
from herdlm.plan.step_time import stage_layers

MOMENTS = 2


def memory_of(job: Job, stack: Stack) -> dict[str, float]:
    """Bytes by part, with their "sum"."""
    shape, layout = job.shape, job.layout
    counts = stage_layers(job, stack)
    layers = max(sum(counts[rank :: layout.pp]) for rank in range(layout.pp))
    held = (layers * shape.layer_parameters + shape.embedding_parameters) / layout.tp
    shards = {"fsdp": layout.sharded, "zero2": layout.sharded, "zero1": layout.sharded, "ddp": 1}[layout.sharding]
    whole = layout.sharding in ("zero1", "ddp")
    tokens = layout.micro_batch * job.seq_len / layout.cp / layout.tp
    begun = job.micro_batches
    if layout.pp > 1:
        limit = layout.pp if layout.vpp == 1 else (2 * (layout.pp - 1) + (layout.vpp - 1) * layout.pp + 1) / layout.vpp
        begun = min(begun, limit)  # type: ignore[assignment]
    else:
        begun = 1
    each = {
        "full": shape.hidden,
        "selective": 3 * shape.hidden + 2 * (shape.queries + shape.keys) + 2 * shape.ffn,
        "none": 4 * shape.hidden + 2 * (shape.queries + shape.keys) + (2 * shape.mlp_matrices - 2) * shape.ffn,
    }[layout.recompute]
    parts = {
        "weights": FP32 * held / shards,
        "gradients": FP32 * held if whole else FP32 * held / shards,
        "optimizer": MOMENTS * FP32 * held / shards,
        "gathered": BF16 * held if not layout.reshard_after_forward else 2 * BF16 * shape.layer_parameters / layout.tp,
        "activations": BF16 * tokens * each * layers * begun,
        "logits": 2 * FP32 * min(2048, tokens * layout.tp) * shape.vocab / layout.tp,
    }
    return {**parts, "sum": sum(parts.values())}
