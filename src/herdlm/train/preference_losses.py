"""The formulas of preference optimization, from log-ratios of answers to a loss for each pair or thumb.

A log-ratio is an answer's log-probability under the policy minus that under the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Ranking loss of a reward model without margin, summed over pairs: -log sigmoid(chosen - rejected).

    Scores are [P]. Llama 3 report, section 4.1.2, which drops Llama 2's margin term.
    """
    return -F.logsigmoid(chosen - rejected).sum()


def sigmoid_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - gamma) for each pair, [P].

    With log-ratios of whole answers it is DPO (Rafailov et al., arXiv 2305.18290, eq. 7), with log-ratios per token
    the length-normalized DPO of Tulu 3 (Lambert et al., arXiv 2411.15124, eq. 6), and with log-probabilities per token
    and a margin SimPO (Meng et al., arXiv 2405.14734, eq. 6).
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def apo_zero_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """APO-zero (D'Oosterlinck et al., arXiv 2408.06266, eq. 7) for each pair, [P], from log-ratios of whole answers.

    It raises the chosen answer's probability and lowers the rejected one's, each by itself; there is no margin.
    """
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


PAIR_LOSSES: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "sigmoid": sigmoid_loss,
    "norm": sigmoid_loss,
    "simpo": sigmoid_loss,
    "apo": apo_zero_loss,
}


def kto_loss(ratios: Tensor, kl: Tensor, is_up: Tensor, beta: float) -> Tensor:
    """KTO's loss for each thumb, [N] (arXiv 2402.01306, eq. 8), from log-ratios of whole answers.

    Args:
        kl: the point of reference, [N].
        is_up: whether the thumb is up, [N] bool.
    """
    gain = torch.where(is_up, ratios - kl, kl - ratios)
    return torch.sigmoid(-beta * gain)
