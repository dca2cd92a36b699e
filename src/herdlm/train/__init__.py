"""The one training loop, its objectives, optimizer and schedules."""

from typing import TYPE_CHECKING, Any

from herdlm.base.package import load, make_callable

if TYPE_CHECKING:
    from herdlm.train.config import TrainConfig
    from herdlm.train.loop import TrainResult, train
    from herdlm.train.objectives import NextToken
    from herdlm.train.preferences import DPO, Reward

__all__ = ["DPO", "NextToken", "Reward", "TrainConfig", "TrainResult", "train"]

_NAMES = {"train": "loop", "TrainResult": "loop", "TrainConfig": "config"}
_NAMES |= dict.fromkeys(("DPO", "NextToken", "Reward"), "objectives")


def __getattr__(name: str) -> Any:
    # On first use, so that reading a recipe does not import torch.
    return load(_NAMES, __name__, name)


make_callable(__name__)
