"""What ranks do in tests of pre-training in stages and of probes on many processes."""

from pathlib import Path

import torch.distributed as dist

from herdlm.base.errors import HerdError
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.tokens.mixture import PretrainBatches
from tests.pretrain.test_staged_pretraining import KEYS
from tests.run.conftest import ROOT
from tests.scaling.test_anneal_probe import probe as probe_whole

FLOAT32 = "pretrain.train.precision=float32"


def everyone(value):
    """The value of each process."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def staged(data, out, keys, stop=None, start=None):
    """Pre-train in stages; what each process ended with, its first step, and what is at ``out`` and beside it."""
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, FLOAT32, *keys])
    read, steps = PretrainBatches.micro_batches, []

    def noting(self, step):
        if step == stop:
            raise KeyboardInterrupt
        steps.append(step)
        return read(self, step)

    PretrainBatches.micro_batches = noting
    ended, out = "", Path(out)
    counts = {}
    try:
        counts = pretrain(
            recipe.job("small", start and Path(start)),
            tokens=Path(data) / "tokens",
            tokenizer=Path(data) / "tokenizer",
            out=out,
        )
    except HerdError as error:
        ended = f"{type(error).__name__} {error.exit_code}: {error}"
    except KeyboardInterrupt:
        ended = "cut off"
    PretrainBatches.micro_batches = read
    work = out.with_name(f".{out.name}.working")
    files = sorted(str(path.relative_to(work)) for path in work.glob("failed-gate-*/*"))
    return {
        "counts": everyone(counts),
        "ended": everyone(ended),
        "first_step": steps[0] if steps else None,
        "published": out.exists(),
        "failed": files,
    }


def probe(data, out, keys):
    """A probe's result on each process."""
    return everyone(probe_whole(Path(data), Path(out), more=[FLOAT32, *keys]))


def several(calls):
    """Many functions in one launch."""
    return [globals()[name](*arguments) for name, arguments in calls]
