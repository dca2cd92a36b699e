"""The learning rate at each step."""

from __future__ import annotations

import math

from herdlm.train.config import TrainConfig


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Rate of step 0 <= ``step`` < ``steps``: linear warm-up, decay to the floor, linear anneal to zero.

    The decay runs from the end of the warm-up to the start of the anneal, which goes on from where the decay ended.
    """
    main = steps - config.anneal_steps
    if step < main or not config.anneal_steps:
        return config.peak_lr * _decayed(step, main, config)
    return config.peak_lr * _decayed(main, main, config) * (steps - step) / (config.anneal_steps + 1)


def _decayed(step: int, main: int, config: TrainConfig) -> float:
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(main - config.warmup_steps, 1)
    if config.decay == "constant":
        return 1.0
    if config.decay == "linear":
        return 1 - (1 - config.floor) * done
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * done))
