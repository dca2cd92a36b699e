"""What ranks do in tests of checkpoints across layouts."""

import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist

from herdlm.base.errors import DamagedError
from herdlm.base.events import read_events
from herdlm.parallel.config import ParallelConfig
from herdlm.parallel.gather import gather_whole
from herdlm.parallel.layout import Layout
from herdlm.train import work as records
from herdlm.train.checkpoint import checkpoints, load_weights
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.parallel.parity import SEQ_LEN, make_model, token_batches

CONFIG = TrainConfig(
    peak_lr=3e-3, warmup_steps=2, precision="float32", average_last=0.5, average_count=3, checkpoint_every_steps=2
)

records.hash_weights = lambda model: (
    ""
)  # these runs resume from other weights, to show that checkpoints have everything


class Rows:
    """Seven steps, cut off before step ``stop``."""

    steps = 7

    def __init__(self, stop=None):
        self.stop = stop

    def micro_batches(self, step):
        if step == self.stop:
            raise KeyboardInterrupt
        return token_batches(step, (3, 2))


class PoisonedOnOne(NextToken):
    """On the last process alone, gives a loss that is not a number in the reads ``at``, counted from 0."""

    def __init__(self, at):
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "reads", [0])

    def read(self, readout, hidden, batch):
        loss, seen = NextToken.read(self, readout, hidden, batch)
        self.reads[0] += 1
        is_hit = dist.get_rank() == dist.get_world_size() - 1 and self.reads[0] - 1 in self.at
        return (loss * float("nan") if is_hit else loss), seen


def run(keys, folder=None, stop=None, seed_weights=True, objective=None, config=CONFIG):
    """Train in a layout (None: this process alone) and give {weight: values} on the first process."""
    model = make_model(torch.float32, "lm", ())
    if not seed_weights:  # what a resumed run starts from must not matter
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)
    if keys is not None:
        model = Layout.make(ParallelConfig(**keys), model.config, seq_len=SEQ_LEN).apply(model)
    try:
        train(model, objective or NextToken(), Rows(stop), config, work=folder, quiet=True)
    except KeyboardInterrupt:
        return None
    if keys is None:
        return {name: p.detach().clone() for name, p in model.named_parameters()}
    return {name: None if p is None else p.clone() for name, p in gather_whole(model)}


def shared_folder():
    """One fresh folder for all processes."""
    folders = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folders)
    return Path(folders[0])


def difference(one, two):
    """The largest difference between two sets of weights, relative to each weight's largest value."""
    return max(float((one[n] - two[n]).abs().max() / two[n].abs().max()) for n in two)


@cache
def _undisturbed(**keys):
    return run(keys)


@cache
def _cut_off(**keys):
    """The folder of a run that was cut off at step 5; its newest checkpoint is of step 4."""
    work = shared_folder()
    run(keys, work, stop=5)
    return work


def cut_off(keys):
    """A copy of that folder."""
    saved, work = _cut_off(**keys), shared_folder()
    if dist.get_rank() == 0:
        shutil.copytree(saved, work, dirs_exist_ok=True)
    dist.barrier()
    return work


def resume_in(saved_in, layouts):
    """Resume a run that was cut off in each layout; how far each ends from the undisturbed one."""
    undisturbed = _undisturbed(**saved_in)
    found = {}
    for keys in layouts:
        work = cut_off(saved_in)
        resumed = run(keys, work, seed_weights=False)
        if dist.get_rank() == 0:
            steps = [event["step"] for event in read_events(work / "events.jsonl", "step")]
            assert steps == list(range(1, 8)), steps
            found[str(keys)] = difference(resumed, undisturbed)
        dist.barrier()
    return found


def damage():
    """With the newest checkpoint damaged on one process's file, all go on from the one before, to the same weights."""
    keys = dict(tp=2, pp=2)
    undisturbed, work = _undisturbed(**keys), cut_off(keys)
    newest = checkpoints(work / "checkpoints")[-1]
    if dist.get_rank() == 0:
        (tensors,) = newest.glob("shard-00003-*")
        content = bytearray(tensors.read_bytes())
        content[-5] ^= 4
        tensors.write_bytes(bytes(content))
    dist.barrier()
    resumed = run(keys, work, seed_weights=False)
    told = None
    if dist.get_rank() == 0:
        for path in (work / "checkpoints").glob("step-*/shard-00002-*"):
            path.unlink()
    dist.barrier()
    try:
        run(keys, work, seed_weights=False)
    except DamagedError as error:
        told = str(error)
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, told)
    return {
        "difference": difference(resumed, undisturbed) if dist.get_rank() == 0 else None,
        "told": everyone,
        "hash": hashlib.sha256(newest.name.encode()).hexdigest()[:4],
    }


def whole_again():
    """Weights saved in a layout, read into a whole model on every process: how far they are from those gathered."""
    keys = dict(tp=2, pp=2)
    work = cut_off(keys)
    model = Layout.make(ParallelConfig(**keys), make_model(torch.float32, "lm", ()).config, seq_len=SEQ_LEN).apply(
        make_model(torch.float32, "lm", ())
    )
    load_weights(checkpoints(work / "checkpoints")[-1], model)
    gathered = {name: None if p is None else p.clone() for name, p in gather_whole(model)}
    whole = make_model(torch.float32, "lm", ())
    load_weights(checkpoints(work / "checkpoints")[-1], whole)
    if dist.get_rank():
        return None
    return difference({name: p.detach() for name, p in whole.named_parameters()}, gathered)


def poisoned():
    """A step whose loss is not a number on one process, passed over and rolled back: the log, and how they differ."""
    ended, logs = {}, {}
    for mode in ("skip", "roll-back"):
        work = shared_folder()
        config = CONFIG.model_copy(update={"on_not_finite": mode})
        at = {10, 11}  # both micro-batches of the sixth step
        ended[mode] = run(dict(tp=2, pp=2), work, objective=PoisonedOnOne(at), config=config)
        if dist.get_rank() == 0:
            logs[mode] = {
                kind: [event["step"] for event in read_events(work / "events.jsonl", kind)]
                for kind in ("step", "refused")
            }
    if dist.get_rank():
        return None
    return {"logs": logs, "difference": difference(ended["roll-back"], ended["skip"])}


def several(calls):
    """Many functions in one launch."""
    return [globals()[name](*arguments) for name, arguments in calls]
