"""A run's figures, live, in TensorBoard and Weights & Biases. ``events.jsonl`` remains the record."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.train.config import TrackConfig

FOLDER = "tensorboard"


class Tracker:
    """Shows what a run logs; use as a context manager, on the leading process.

    Args:
        work: the run's folder; TensorBoard's files go into ``tensorboard`` there.
        title: the run's name.
        done: the number of finished steps; what was shown of later ones is dropped.

    Raises:
        InputError: a library that ``config`` asks for is not installed.
    """

    def __init__(self, config: TrackConfig, work: Path, title: str, done: int) -> None:
        self.board: Any = None
        self.wandb: Any = None
        has_board = find_spec("tensorboard") is not None
        if config.tensorboard == "on" and not has_board:
            raise InputError("track.tensorboard is on, but tensorboard is not installed", "pip install tensorboard")
        if config.tensorboard != "off" and has_board:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(work / FOLDER), purge_step=done + 1 if done else None)
        if config.wandb_project is not None:
            if find_spec("wandb") is None:
                raise InputError("track.wandb_project is set, but wandb is not installed", "pip install wandb")
            import wandb

            self.wandb = wandb.init(
                project=config.wandb_project, name=title, dir=str(work), id=_id(work), resume="allow"
            )

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish(exit_code=1 if raised[0] else 0)

    def write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        """Show the figures of a step under ``kind/name``."""
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)
        if self.wandb:
            self.wandb.log({f"{kind}/{name}": value for name, value in figures.items()}, step=step)


def _id(work: Path) -> str:
    """The id of the folder's Weights & Biases run, so that a resumed run continues its curves."""
    import uuid

    path = work / "wandb-run"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")
