"""Small steps for tests of the dry run, also as gloo processes take them with values."""

import contextlib

from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.layout import lay_out
from herdlm.plan.dryrun.batches import DPO_COLUMNS, REWARD_COLUMNS, FullRows
from herdlm.plan.dryrun.measure import Meters, group_names, measured_step
from herdlm.plan.dryrun.observe import Observer
from herdlm.plan.dryrun.step import StepJob
from herdlm.train.config import TrainConfig
from herdlm.train.loop import TrainingRun
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO, Reward

SHAPE = dict(vocab_size=512, dim=64, layers=6, heads=8, kv_heads=4, ffn_dim=96, max_seq_len=1024)
OBJECTIVES = {"next": (NextToken(), ()), "dpo": (DPO(), DPO_COLUMNS), "reward": (Reward(), REWARD_COLUMNS)}


def job_of(objective="next", rows=(4, 4), seq_len=64, precision="float32", gpu=False, shape=(), **parallel):
    """A step of a small model."""
    loss, columns = OBJECTIVES[objective]
    head = "score" if objective == "reward" else "lm"
    return StepJob(
        name=objective,
        model=ModelConfig(**(SHAPE | dict(shape) | {"head": head})),
        parallel=ParallelConfig(**parallel),
        objective=loss,
        batches=FullRows(tuple(rows), seq_len, columns),
        train=TrainConfig(peak_lr=1e-4, precision=precision, prefetch_steps=0),
        gpu=gpu,
    )


def with_values(given):
    """Measure the second step of a run with values; of every rank: peak, categories, collectives and FLOPs."""
    import torch.distributed as dist

    job = job_of(**given)
    model = build(job.model)
    initialize(model, 0)
    if dist.is_initialized():
        model = lay_out(job.parallel, model, {job.batches.seq_len}, autocast=job.train.autocast)
    meters = Meters.make({} if isinstance(model, Transformer) else group_names(model.mesh), lambda tensor: True)
    with contextlib.ExitStack() as stack:
        batches = FullRows(job.batches.rows, job.batches.seq_len, job.batches.columns, steps=2)
        run = TrainingRun(
            stack, model, job.objective, batches, job.train, work=None, title="", track=None, identity=None
        )
        run.train_step()
        run.optimizer.zero_grad(set_to_none=True)
        measured_step(run, Observer(meters.all), meters)
    mine = {
        "peak": meters.memory.peak,
        "at_peak": meters.memory.at_peak,
        "collectives": [[c.kind, c.group, c.ranks, c.dtype, c.count, c.bytes] for c in meters.traffic.result()],
        "flops": {each.operation: each.flops for each in meters.flops.result()},
    }
    if not dist.is_initialized():
        return [mine]
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone
