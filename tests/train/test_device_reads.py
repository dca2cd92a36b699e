"""A training step reads from the device once, however many micro-batches and objectives it has.

On a GPU, whatever needs a tensor's values on the CPU waits for all work given to the GPU so far. Here the CPU plays the
device: every tensor that came from a parameter, or from a batch that was moved, is one of the device's.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from herdlm.tokens.batch import Batch
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.tokens.teacher import with_columns
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO, Reward
from herdlm.train.teacher import Distill
from tests.conftest import small_model
from tests.train.test_loop import Split, batches
from tests.train.test_objectives import PAIRS

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.is_nonzero}
STEPS = 3


class Device(TorchDispatchMode):
    """Follows the device's tensors and counts what reads their values."""

    def __init__(self, model):
        super().__init__()
        self.mine = {id(p): p for p in model.parameters()}  # keeps them alive, so that no id comes again
        self.reads = []

    def add(self, tensor):
        self.mine[id(tensor)] = tensor
        return tensor

    def holds(self, values):
        return any(id(value) in self.mine for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if self.holds((args, kwargs)):
            by_mask = function.overloadpacket is aten.index and any(
                i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
            )
            if by_mask or function.overloadpacket in READS:
                self.reads.append(str(function))
            for tensor in tree_flatten(out)[0]:
                if isinstance(tensor, torch.Tensor):
                    self.add(tensor)
        return out


@pytest.fixture
def watched(monkeypatch):
    """Trains a model while its reads are counted; gives how many there were."""

    def run(model, objective, data):
        device = Device(model)
        to, to_list = Batch.to, torch.Tensor.tolist

        def moved(batch, where):
            batch = to(batch, where)
            names = ("tokens", "targets", "weights", "documents", "positions")
            for name in names:
                setattr(batch, name, device.add(getattr(batch, name).clone()))
            batch.columns = {name: device.add(value.clone()) for name, value in batch.columns.items()}
            return batch

        def listed(tensor):
            if device.holds([tensor]):
                device.reads.append("tolist")
            return to_list(tensor)

        monkeypatch.setattr(Batch, "to", moved)
        monkeypatch.setattr(torch.Tensor, "tolist", listed)
        with device:
            train(model, objective, data, TrainConfig(peak_lr=1e-3, precision="float32", prefetch_steps=0), quiet=True)
        return device.reads

    return run


class First:
    """The first steps of other batches, each with a micro-batch ``times`` over."""

    def __init__(self, data, times):
        self.data, self.times, self.steps = data, times, STEPS

    def micro_batches(self, step):
        return self.data.micro_batches(step) * self.times


class Taught(First):
    """With the columns of a teacher that knows of two tokens."""

    def micro_batches(self, step):
        given = []
        for batch in super().micro_batches(step):
            count = int((batch.weights > 0).sum())
            ids = torch.tensor([[3, 4]]).expand(count, 2)
            given.append(with_columns(batch, ids, torch.full((count, 2), -1.0)))
        return given


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("name", ["next", "distill", "reward", "dpo"])
def test_a_step_reads_once(tokenizer, watched, name, times):
    rows = Split(batches(tokenizer, rows=2))
    pairs = PreferenceBatches(
        ChatFormat.of(tokenizer),
        [pair | {"reference_chosen": -3.0, "reference_rejected": -2.0} for pair in PAIRS * 3],
        seq_len=64,
        pairs_per_step=1,
        epochs=2,
        seed=1,
        mask_formatting=True,
    )
    objective, data = {
        "next": (NextToken(), First(rows, times)),
        "distill": (Distill(), Taught(rows, times)),
        "reward": (Reward(), First(pairs, times)),
        "dpo": (DPO(), First(pairs, times)),
    }[name]
    model = small_model(head="score") if name == "reward" else small_model()
    assert watched(model, objective, data) == ["tolist"] * STEPS


def test_a_read_in_a_micro_batch_is_seen(tokenizer, watched):
    class Reading(NextToken):
        def loss(self, model, batch):
            loss, logged = NextToken.loss(self, model, batch)
            assert float(loss.detach()) > 0 and bool((batch.weights[batch.weights > 0] > 0).all())
            return loss, logged

    reads = watched(small_model(), Reading(), First(Split(batches(tokenizer, rows=2)), 2))
    a_micro_batch = ["aten._local_scalar_dense.default", "aten.index.Tensor", "aten._local_scalar_dense.default"]
    assert reads == ([*a_micro_batch * 4, "tolist"]) * STEPS
