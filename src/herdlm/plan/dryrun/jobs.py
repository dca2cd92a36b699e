"""Turns parts of a recipe into the step that a dry run takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herdlm.align.config import DpoConfig, RewardConfig, SftConfig
from herdlm.align.defaults import MICRO_BATCH_TOKENS
from herdlm.align.dpo import objective_of
from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, sizes_for, split_layers
from herdlm.plan.dryrun.batches import DPO_COLUMNS, REWARD_COLUMNS, FullRows
from herdlm.plan.dryrun.step import StepJob
from herdlm.pretrain.config import Phase, timeline
from herdlm.pretrain.job import PretrainJob
from herdlm.train.objectives import NextToken, Objective
from herdlm.train.own_objective import open_objective
from herdlm.train.preferences import Reward

Method = Literal["sft", "reward", "dpo"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A step, the processes that take it, and their layout."""

    job: StepJob
    ranks: int
    sizes: Sizes

    def stage_ranks(self) -> list[int]:
        """The first rank of each pipeline rank."""
        return [stage * self.sizes.cp * self.sizes.tp for stage in range(self.sizes.pp)]


def pretraining_plan(
    job: PretrainJob, ranks: int | None, *, seq_len: int | None = None, micro_batches: int | None = None
) -> Plan:
    """A step of pre-training.

    Args:
        ranks: number of processes; None: the layout's own.
        seq_len: of the phase to take; None: the last one of the main part.
        micro_batches: the first of the step; None: all.

    Raises:
        InputError: the layout does not fit, or no phase has such rows.
    """
    phase = _phase(timeline(job.pretrain), seq_len)
    count, sizes = _layout(job.parallel, job.model, ranks, phase.seq_len)
    given, limit = job.pretrain.rows_per_micro_batch, job.parallel.rows_per_micro_batch
    at_once = min(given or phase.rows_per_step, phase.rows_per_step)
    if count == 1 and limit:  # as PretrainJob.batching
        at_once = min(at_once, limit)
    rows = _split(phase.rows_per_step, at_once)
    if micro_batches is not None:
        each = min(at_once, limit * sizes.dp if limit else at_once)
        rows = _split(min(each * micro_batches, phase.rows_per_step), at_once)
    step = StepJob(
        name="pretrain",
        model=job.model,
        parallel=job.parallel,
        objective=job.objective(),
        batches=FullRows(rows, phase.seq_len),
        train=job.pretrain.train,
    )
    return Plan(step, count, sizes)


def finetuning_plan(
    method: Method,
    config: SftConfig | RewardConfig | DpoConfig,
    model: ModelConfig,
    parallel: ParallelConfig,
    ranks: int | None,
    *,
    micro_batches: int | None = None,
) -> Plan:
    """A step of fine-tuning in which every dialog, or every answer with its prompt, fills a row.

    Raises:
        InputError: the layout does not fit, or the loss is not one on pairs.
    """
    if isinstance(config, DpoConfig) and config.loss == "kto":
        raise InputError("a dry run knows losses on pairs, and align.dpo.loss is 'kto'", "Choose another loss")
    if method == "reward":
        model = model.model_copy(update={"head": "score", "tied_embeddings": False})
    count, sizes = _layout(parallel, model, ranks, config.seq_len)
    # As herdlm.align.open_run divides steps, so that the layout does not.
    at_once = (parallel.rows_per_micro_batch or max(1, MICRO_BATCH_TOKENS // config.seq_len)) * sizes.dp
    columns: tuple[str, ...] = ()
    if isinstance(config, SftConfig):
        rows = _split(config.rows_per_step, at_once)
    else:
        rows = [2 * pairs for pairs in _split(config.pairs_per_step, max(1, at_once // 2))]
        columns = DPO_COLUMNS if isinstance(config, DpoConfig) else REWARD_COLUMNS
    step = StepJob(
        name=method,
        model=model,
        parallel=parallel.model_copy(update={"rows_per_micro_batch": None}),
        objective=open_objective(config.objective, f"align.{method}.objective", _objective(config)),
        batches=FullRows(rows[:micro_batches], config.seq_len, columns),
        train=config.train,
    )
    return Plan(step, count, sizes)


def _objective(config: SftConfig | RewardConfig | DpoConfig) -> Objective:
    if isinstance(config, DpoConfig):
        return objective_of(config)
    return Reward() if isinstance(config, RewardConfig) else NextToken()


def _phase(phases: list[Phase], seq_len: int | None) -> Phase:
    if seq_len is None:
        return [phase for phase in phases if phase.kind == "main"][-1]
    found = [phase for phase in phases if phase.seq_len == seq_len]
    if not found:
        known = sorted({phase.seq_len for phase in phases})
        raise InputError(
            f"no phase of pre-training has rows of {seq_len:,} tokens",
            f"Give one of {', '.join(map(str, known))} as --seq-len",
        )
    return found[-1]


def _layout(parallel: ParallelConfig, model: ModelConfig, ranks: int | None, seq_len: int) -> tuple[int, Sizes]:
    own = parallel.tp * parallel.cp * parallel.pp * parallel.dp_replicate * max(parallel.dp_shard, 1)
    count = ranks or own
    sizes = sizes_for(parallel, count, model, seq_len)
    if sizes.pp > 1:
        stages = split_layers(model.layers, sizes.pp * parallel.stages_per_rank, parallel.layers_per_stage)
        for number, layers in enumerate(stages[1:-1], 1):
            if not layers:
                raise InputError(
                    f"pipeline stage {number} of parallel.layers_per_stage has no layer", "Give it one, or lower pp"
                )
    return count, sizes


def _split(rows: int, at_once: int) -> list[int]:
    return [min(at_once, rows - first) for first in range(0, rows, at_once)]
