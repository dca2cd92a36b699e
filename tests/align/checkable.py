"""What the tests of policy gradient reward, and its settings, in float32."""

from herdlm.align.grpo.config import GrpoConfig
from tests.align.jobs import TRAIN


def has(answer, reference):
    """Whether the answer has the letter that is asked for."""
    return reference in answer


def config(**changes):
    """Four prompts with four short answers each, one step on them."""
    train = TRAIN | {"decay": "constant", "peak_lr": 1e-3} | changes.pop("train", {})
    own = ("tests.align.checkable:has",)
    keys = dict(seq_len=128, prompts_per_step=4, samples=4, max_answer_tokens=8, own_verifiers=own, train=train)
    return GrpoConfig(**(keys | changes))
