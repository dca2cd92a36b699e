"""Jobs on the files of the fixture ``folder``, in float32, on one thread."""

from herdlm.align.config import DpoConfig, RewardConfig, SftConfig
from herdlm.align.job import FinetuneJob
from herdlm.data.source import Source
from herdlm.train.config import TrackConfig

TRAIN = dict(peak_lr=3e-3, precision="float32", decay="linear", floor=0.0, weight_decay=0.0, checkpoint_every_steps=2)
SFT = SftConfig(seq_len=128, rows_per_step=4, epochs=1, train=TRAIN)
REWARD = RewardConfig(seq_len=128, pairs_per_step=6, epochs=1, train=TRAIN)
DPO = DpoConfig(seq_len=128, pairs_per_step=6, epochs=1, train=TRAIN | {"peak_lr": 1e-3})


def job(folder, out, *, data="chats.jsonl", held_out=None, **changes):
    """A job that trains the base model, or ``changes["model"]`` beside it, on a file of the folder."""
    keys = dict(
        model=folder / changes.pop("model", "base"),
        out=out,
        data=(Source(folder / data),),
        held_out=(Source(held_out),) if held_out else (),
        teacher=folder / changes.pop("teacher") if "teacher" in changes else None,
        track=TrackConfig(tensorboard="off"),
        quiet=True,
    )
    return FinetuneJob(**(keys | changes))
