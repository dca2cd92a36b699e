"""Prompts whose answers can be checked, and jobs of policy gradient on them, in float32 on one thread."""

import random

from herdlm.align.grpo.config import GrpoConfig
from tests.align.conftest import WORDS, words
from tests.align.jobs import TRAIN

ANY_WORD = {"pattern": "|".join(WORDS)}


def prompts(seed, count):
    """Prompts that an answer with one of a few letters satisfies: an untrained model finds some."""
    rng = random.Random(seed)
    return [
        {
            "prompt": f"{words(rng, 2)} {seed} {number}",
            "answer": rng.choice("ae"),
            "verifier": "tests.align.checkable:has",
        }
        for number in range(count)
    ]


def has(answer, reference):
    """Whether the answer has the letter that is asked for."""
    return reference in answer


GRPO = GrpoConfig(
    seq_len=128,
    prompts_per_step=4,
    samples=4,
    max_answer_tokens=8,
    train=TRAIN | {"decay": "constant", "peak_lr": 1e-3},
)
