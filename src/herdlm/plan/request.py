"""What a user asks of the planner, with open ends, as the jobs that it may mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.job import Job, Layout, Offload, Precision, Recompute, Schedule, Shape, Sharding
from herdlm.plan.published import virtual_stages
from herdlm.pretrain.config import timeline
from herdlm.pretrain.job import PretrainJob

MICRO_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Request:
    """A job whose ``vpp``, ``micro_batch`` and ``dp_shard`` may be left open (None)."""

    shape: Shape
    gpus: int
    gpu: str
    seq_len: int
    tokens_per_step: int
    tp: int = 1
    cp: int = 1
    pp: int = 1
    vpp: int | None = None
    dp_shard: int | None = None
    micro_batch: int | None = None
    schedule: Schedule | None = None
    recompute: Recompute = "none"
    precision: Precision = "bf16"
    reshard_after_forward: bool = False
    offload: Offload = "none"
    sharding: Sharding = "fsdp"
    async_tp: bool = False
    software: str | None = None

    def jobs(self) -> list[Job]:
        """All jobs that fill the open ends.

        Raises:
            InputError: the sizes do not fit together.
        """
        ranks = self.tp * self.cp * self.pp
        if self.gpus % ranks:
            raise InputError(f"{self.gpus} GPUs are not a multiple of tp x cp x pp = {ranks}", "Change one of them")
        dp = self.gpus // ranks
        shard = self.dp_shard or dp
        if dp % shard:
            raise InputError(
                f"dp_shard {shard} does not divide the {dp} data-parallel ranks", "Change dp_shard or gpus"
            )
        if self.tokens_per_step % self.seq_len or (rows := self.tokens_per_step // self.seq_len) % dp:
            raise InputError(
                f"tokens_per_step {self.tokens_per_step} is not a multiple of seq_len {self.seq_len} x {dp} "
                "data-parallel ranks",
                "Change one of them",
            )
        micros = [self.micro_batch] if self.micro_batch else [m for m in MICRO_BATCHES if rows // dp % m == 0]
        return [self._job(dp // shard, shard, micro, vpp) for micro in micros for vpp in self._stages()]

    def changed(self, values: dict[str, Any]) -> Request:
        """The request with other values; another ``pp`` opens schedule and virtual stages that are not given."""
        if "pp" in values and values["pp"] != self.pp:
            values = {"schedule": None, "vpp": None, **values}
        if values.keys() & {"tp", "cp", "pp"}:
            values = {"dp_shard": None, **values}
        return replace(self, **values)

    def open_ends(self) -> list[str]:
        """Names of what the planner chooses."""
        names = [name for name in ("vpp", "micro_batch") if getattr(self, name) is None]
        return names if self.pp > 1 else [name for name in names if name != "vpp"]

    def _stages(self) -> list[int]:
        if self.vpp:
            return [self.vpp]
        if self.pp == 1 or self.schedule in ("1f1b", "zero-bubble"):
            return [1]
        found = virtual_stages(self.shape.layers, self.pp)
        return [vpp for vpp in found if vpp > 1] or [1] if self.schedule == "interleaved" else found

    def _job(self, replicate: int, shard: int, micro: int, vpp: int) -> Job:
        layout = Layout(
            tp=self.tp,
            cp=self.cp,
            pp=self.pp,
            vpp=vpp,
            dp_shard=shard,
            dp_replicate=replicate,
            micro_batch=micro,
            schedule=self.schedule or ("interleaved" if vpp > 1 else "1f1b"),
            recompute=self.recompute,
            precision=self.precision,
            reshard_after_forward=self.reshard_after_forward,
            offload=self.offload,
            sharding=self.sharding,
            async_tp=self.async_tp,
        )
        return Job(self.shape, layout, self.gpus, self.gpu, self.seq_len, self.tokens_per_step, self.software)


def request_of(job: PretrainJob, gpus: int, gpu: str) -> Request:
    """The request that a recipe's model makes: its layout, and the phase in which it reads most tokens.

    Raises:
        InputError: it trains in FP32, for which the planner has no rates.
    """
    train, parallel = job.pretrain.train, job.parallel
    if train.precision == "float32":
        raise InputError("the planner has no rates of FP32", "Set pretrain.train.precision to bfloat16 or fp8")
    phase = max(timeline(job.pretrain), key=lambda phase: phase.end_token - phase.first_token)
    recompute: dict[str, Recompute] = {"none": "none", "layer": "full", "selective": "selective"}
    ranks = parallel.tp * parallel.cp * parallel.pp
    dp = max(gpus // ranks, 1)
    given = min(filter(None, (parallel.rows_per_micro_batch, _micro_rows(job, phase.rows_per_step, dp))), default=None)
    return Request(
        shape=Shape.of(job.model),
        gpus=gpus,
        gpu=gpu,
        seq_len=phase.seq_len,
        tokens_per_step=phase.tokens_per_step,
        tp=parallel.tp,
        cp=parallel.cp,
        pp=parallel.pp,
        vpp=parallel.stages_per_rank,
        dp_shard=parallel.dp_shard if parallel.dp_shard > 0 and dp % parallel.dp_shard == 0 else None,
        micro_batch=given,
        schedule=parallel.pipeline_schedule,
        recompute=recompute[parallel.activation_checkpointing],
        precision="fp8" if train.precision == "fp8" else "bf16",
        reshard_after_forward=parallel.reshard_after_forward,
    )


def _micro_rows(job: PretrainJob, rows_per_step: int, dp: int) -> int | None:
    """Rows of a micro-batch on a data-parallel rank by the recipe's own rule; None where it leaves them open."""
    whole = job.pretrain.rows_per_micro_batch
    return max(min(whole, rows_per_step) // dp, 1) if whole else None
