"""What the dry run uses of torch's insides is there, and is as before when it ends."""

import torch
import torch.distributed as dist
from torch.distributed import device_mesh, distributed_c10d
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from torch.distributed.tensor._sharding_prop import ShardingPropagator

from herdlm.plan.dryrun.memory import MemoryMeter
from herdlm.plan.dryrun.private import FakeDevice, fake_processes, fsdp_categories, in_backward, is_fake, without_values


def insides():
    names = ("unshard", "wait_for_unshard", "post_backward")
    return [
        *(getattr(FSDPParamGroup, name) for name in names),
        ShardingPropagator._propagate_tensor_meta_non_cached,
        torch.UntypedStorage.resize_,
        dist.isend,
        *(module.new_group for module in (dist, distributed_c10d, device_mesh)),
    ]


def test_every_change_is_undone():
    before, memory = insides(), MemoryMeter()
    with fake_processes(3, 16), without_values(), fsdp_categories(memory), memory.resizes():
        assert dist.get_rank() == 3
        assert not any(now is then for now, then in zip(insides(), before, strict=True))
    assert insides() == before
    assert not dist.is_initialized()


def test_only_what_needs_the_device_loses_its_values():
    device = FakeDevice([])
    host = torch.arange(4.0)
    with device:
        weight = torch.ones(4)
        assert is_fake(weight)
        assert is_fake(weight * host)
        assert (host * 2).tolist() == [0, 2, 4, 6]
        assert float(weight.sum()) == 1.0


def test_memory_follows_storages():
    memory = MemoryMeter()
    device = FakeDevice([memory])
    with device, memory.resizes():
        first = torch.empty(100)
        second = first.view(10, 10)
        with memory.category("gathered"):
            third = torch.empty(50)
        assert memory.now == {"activations": 400, "gathered": 200}
        third.untyped_storage().resize_(0)
        memory.assign(first, "weights")
        assert memory.now == {"activations": 0, "gathered": 0, "weights": 400}
        del first
        assert memory.total == 400
        del second
    assert (memory.total, memory.peak) == (0, 600)
    assert memory.at_peak == {"activations": 400, "gathered": 200}


def test_a_backward_pass_is_known():
    seen = []
    weight = torch.ones(1, requires_grad=True)
    weight.register_hook(lambda grad: seen.append(in_backward()))
    weight.sum().backward()
    assert (seen, in_backward()) == ([True], False)
