"""Weight gradients that are deferred are those that backward would have computed, in one process."""

import torch

from herdlm.parallel.linear import DeferredGradients, PlainLinear


def test_deferred_gradients_add_up_to_those_of_backward():
    torch.manual_seed(0)
    plain, deferred = torch.nn.Linear(5, 3, bias=False), DeferredGradients()
    postponed = torch.nn.Linear(5, 3, bias=False)
    postponed.load_state_dict(plain.state_dict())
    postponed.__class__, postponed.deferred, deferred.on = PlainLinear, deferred, True
    for shape in ((2, 4, 5), (1, 7, 5)):  # two micro-batches [B, T, in]
        x = torch.randn(shape)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        deferred.waiting.append([])
        postponed(ours).pow(2).sum().backward()
        plain(theirs).pow(2).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert postponed.weight.grad is None
    deferred.compute()
    deferred.compute()
    torch.testing.assert_close(deferred.sums[postponed.weight], plain.weight.grad)
    assert not deferred.waiting
