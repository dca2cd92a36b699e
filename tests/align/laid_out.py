"""What ranks do in tests of training on files in layouts."""

from pathlib import Path

import torch.distributed as dist

from herdlm.align.dpo_training import dpo
from herdlm.align.grpo.training import grpo
from herdlm.align.reward_training import reward
from herdlm.align.sft import sft
from herdlm.base.errors import HerdError
from herdlm.model.start import Start
from herdlm.parallel.config import ParallelConfig
from tests.align.checkable import config as grpo_config
from tests.align.jobs import DPO, REWARD, SFT, job

GRPO = grpo_config(minibatches=2, dynamic_sampling=True)
RUNS = {
    "sft": (sft, SFT, "chats"),
    "reward": (reward, REWARD, "pairs"),
    "dpo": (dpo, DPO, "pairs"),
    "grpo": (grpo, GRPO, "prompts"),
}


def run(name, folder, out, layout, **changes):
    """Train in a layout on a file of the folder; what the calls returned or raised, by process."""
    act, config, data = RUNS[name]
    folder, out = Path(folder), Path(out)
    config = type(config).model_validate(config.model_dump(exclude_unset=True) | changes.pop("config", {}))
    keys = dict(data=f"{data}.jsonl", held_out=folder / f"test-{data}.jsonl", steps=3) | changes
    try:
        told = act(job(folder, out, parallel=ParallelConfig(**layout), **keys), config)
    except HerdError as error:
        told = str(error)
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, told)
    return every


def from_parts(calls):
    """As :func:`several`, where no process may load a whole model before it is trained."""
    Start.load = None
    return several(calls)


def several(calls):
    """Many functions in one launch."""
    return [run(name, *arguments, **changes) for name, arguments, changes in calls]
