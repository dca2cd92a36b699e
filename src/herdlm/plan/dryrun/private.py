"""All that a dry run needs of torch's insides; tests/plan/test_dryrun_private.py says which of it each version has.

Nothing here changes what code computes with values: every change is undone when its context ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed import device_mesh, distributed_c10d
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

from herdlm.plan.dryrun.observe import Meter, Observer, tensors_in

if TYPE_CHECKING:
    from herdlm.plan.dryrun.memory import MemoryMeter

_local_scalar: Any = torch.ops.aten._local_scalar_dense.default
_wait: Any = torch.ops._c10d_functional.wait_tensor.default


def in_backward() -> bool:
    """Whether this is called in a backward pass."""
    return torch._C._current_graph_task_id() != -1


def group_of(arguments: Sequence[Any]) -> dist.ProcessGroup | None:
    """The process group among an operator's arguments: by name, or as a boxed object."""
    torch_groups: Any = distributed_c10d
    resolve: Any = torch_groups._resolve_process_group
    for each in arguments:
        if isinstance(each, str) and each in distributed_c10d._world.pg_names.values():
            found: dist.ProcessGroup = resolve(each)
            return found
        if isinstance(each, torch.ScriptObject):
            try:
                return dist.ProcessGroup.unbox(each)
            except RuntimeError:  # another object, such as the kind of a reduction
                continue
    return None


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor has no values."""
    return isinstance(tensor, FakeTensor)


class FakeDevice(Observer):  # type: ignore[no-untyped-call]
    """Computes without values what depends on a tensor without values, and makes new tensors so.

    The rest, which is batches and plans on the host, is computed as always: operations on tensors with values, and new
    tensors in what :meth:`on_host` runs. Code that waits for the device gets 1.0 for a float, the only type that a step
    reads.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        super().__init__(meters)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._on_host = False

    @contextmanager
    def on_host(self, *methods: tuple[type, str]) -> Iterator[None]:
        """Meanwhile, tensors that these methods make have values."""

        def run_on_host(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:
                before, self._on_host = self._on_host, True
                try:
                    return original(*args, **named)
                finally:
                    self._on_host = before

            return call

        with ExitStack() as stack:
            for owner, name in methods:
                stack.enter_context(_replaced(owner, name, run_on_host(getattr(owner, name))))
            yield

    def run(self, func: Any, types: Sequence[type], args: Sequence[Any], named: dict[str, Any]) -> Any:
        """See :class:`herdlm.plan.dryrun.observe.Observer`."""
        if any(issubclass(kind, FakeTensor) for kind in types):
            if func is _wait:  # by default a new tensor, which no real collective returns
                return args[0]
            if func is _local_scalar and args[0].dtype.is_floating_point:
                return 1.0
            return func(*args, **named)
        if not self._on_host and "device" in named and next(tensors_in(args), None) is None:
            with self.mode:
                return func(*args, **named)
        return func(*args, **named)


@contextmanager
def fake_processes(rank: int, ranks: int) -> Iterator[None]:
    """A default group of ``ranks`` processes of which this one is the only one; collectives do nothing.

    Groups without this process are not made, which would take most of the time with thousands of processes.
    """
    with ExitStack() as stack:
        new_group = dist.new_group

        def only_own(members: Any = None, *args: Any, **named: Any) -> Any:
            members = named.pop("ranks", members)
            if members is not None and rank not in list(members):
                return dist.GroupMember.NON_GROUP_MEMBER
            return new_group(members, *args, **named)

        for module in (dist, distributed_c10d, device_mesh):
            stack.enter_context(_replaced(module, "new_group", only_own))
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
        try:
            yield
        finally:
            dist.destroy_process_group()


class _Sent:
    """A transfer that is complete: a fake one never says so, and what it sends would stay in memory."""

    def is_completed(self) -> bool:
        return True

    def wait(self) -> bool:
        return True


@contextmanager
def without_values() -> Iterator[None]:
    """Let distributed tensors and transfers work under :class:`FakeDevice`.

    To find out how a result is sharded, DTensor computes with tensors of whole shapes. They are no memory of a rank.
    """
    propagate, send = ShardingPropagator._propagate_tensor_meta_non_cached, dist.isend

    def outside(self: Any, *args: Any, **named: Any) -> Any:
        with _disable_current_modes():
            return propagate(self, *args, **named)

    def sent(*args: Any, **named: Any) -> _Sent:
        send(*args, **named)
        return _Sent()

    with _replaced(ShardingPropagator, "_propagate_tensor_meta_non_cached", outside), _replaced(dist, "isend", sent):
        yield


@contextmanager
def fsdp_categories(memory: MemoryMeter) -> Iterator[None]:
    """Tell a memory meter which tensors are FSDP's, and for what."""
    with ExitStack() as stack:
        for name, category in (("unshard", "communication"), ("wait_for_unshard", "gathered")):
            stack.enter_context(
                _replaced(FSDPParamGroup, name, _in_category(getattr(FSDPParamGroup, name), memory, category))
            )
        reduce = FSDPParamGroup.post_backward

        def post_backward(self: Any, *args: Any) -> None:
            for held in self.fsdp_params:
                if (weight := getattr(held, "_unsharded_param", None)) is not None:
                    memory.assign(weight.grad, "accumulated")
            with memory.category("communication"):
                reduce(self, *args)
            for held in self.fsdp_params:
                memory.assign(held.unsharded_accumulated_grad, "accumulated")
                memory.assign(held.sharded_param.grad, "gradients")

        stack.enter_context(_replaced(FSDPParamGroup, "post_backward", post_backward))
        yield


def _in_category(original: Callable[..., Any], memory: MemoryMeter, category: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **named: Any) -> Any:
        with memory.category(category):
            return original(self, *args, **named)

    return call


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
