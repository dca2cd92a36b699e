"""Log-probabilities and losses, computed only where there is a target.

Every loss is a sum; the loop divides it by the global weight of all targets, so that accumulation and layout never
change the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.model.transformer import Transformer


def target_logprobs(model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target, [N] float32, from hidden states [N, D] and targets [N]."""
    return -F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Ranking loss of a reward model without margin, summed over pairs: -log sigmoid(chosen - rejected).

    Scores are [P]. Llama 3 report, section 4.1.2, which drops Llama 2's margin term.
    """
    return -F.logsigmoid(chosen - rejected).sum()


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7), summed over pairs.

    All arguments are log-probabilities of whole answers, [P].
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * margin).sum()


def sums_by_document(values: Tensor, documents: Tensor, count: int) -> Tensor:
    """Add up ``values`` [N] by document number [N] into [count]."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, documents, values)
