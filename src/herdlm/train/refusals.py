"""What the training loop refuses: steps that are not finite or learn nothing, and weights without the precision."""

from __future__ import annotations

from herdlm.base.errors import HerdError, InputError
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.train.config import TrainConfig


def refusal_error(problem: str, config: TrainConfig, refused: int) -> HerdError | None:
    """The error that ends a run after a step that is not finite, the ``refused``-th; None if it may continue."""
    if config.on_not_finite == "stop":
        return HerdError(problem, "Look at the batch, or lower peak_lr in a new folder")
    if refused > config.max_refused_steps:
        most = f"{refused} skipped steps exceed max_refused_steps = {config.max_refused_steps}"
        return HerdError(f"{problem}; {most}", "Look at the data, or lower peak_lr in a new folder")
    return None


def no_target(title: str, step: int) -> InputError:
    """The error of a step, counted from 1, in which nothing is learned."""
    return InputError(
        f"{title}: step {step} has no target: nothing in its batches has a weight",
        "Drop items without an answer from the data",
    )


def convert_to_float(model: Transformer | ParallelModel) -> None:
    """Convert a model to FP32, in place: in narrower types small updates of weights are lost.

    Raises:
        InputError: it is laid out over processes.
    """
    if isinstance(model, ParallelModel):
        raise InputError(
            "the model was laid out with weights narrower than FP32, in which small updates are lost",
            "Load it with herdlm.model.hf.load_for_training",
        )
    model.float()
