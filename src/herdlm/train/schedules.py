"""The learning rate at each step."""

from __future__ import annotations

import math

from herdlm.train.config import TrainConfig


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate at ``step``, counted from 0 to ``steps`` - 1: linear warm-up, decay to the floor, linear anneal to zero.

    The schedule spans ``config.horizon_steps`` if given, else ``steps``. In its last ``anneal_steps`` the rate falls
    linearly from the decay's end to zero. Between warm-up and anneal it

    - falls to the floor at once, in ``decay_steps`` or by the anneal (``cosine``, ``linear``);
    - stays at its peak, then falls linearly in the last ``decay_steps`` (``warmup-stable-decay``; Hu et al.,
      arXiv 2404.06395);
    - stays at its peak (``constant``).
    """
    steps = config.horizon_steps or steps
    main = steps - config.anneal_steps
    if step < main or not config.anneal_steps:
        return config.peak_lr * _decayed(step, main, config)
    return config.peak_lr * _decayed(main, main, config) * (steps - step) / (config.anneal_steps + 1)


def _decayed(step: int, main: int, config: TrainConfig) -> float:
    """The rate as a share of its peak, if the anneal begins at step ``main``."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return 1.0
    if config.decay == "warmup-stable-decay":
        begin = max(main - (config.decay_steps or 0), config.warmup_steps)
        fall = main - begin
    else:
        begin = config.warmup_steps
        fall = config.decay_steps or main - config.warmup_steps
    done = min(max((step - begin) / max(fall, 1), 0.0), 1.0)
    if config.decay == "cosine":
        return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * done))
    return 1 - (1 - config.floor) * done
