"""Shows every operation of this process to meters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode


class Meter(Protocol):
    """Something that measures operations."""

    def seen(self, operation: Any, args: Sequence[Any], named: dict[str, Any], result: Any) -> None:
        """An operation ran on plain tensors."""
        ...


class Observer(TorchDispatchMode):
    """Shows operations to meters as they run; of distributed tensors, those on this process's parts."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meters = meters

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, then show it."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again, with the tensors of this process
        named = kwargs or {}
        result = self.run(func, types, args, named)
        for meter in self.meters:
            meter.seen(func, args, named, result)
        return result

    def run(self, func: Any, types: Sequence[type], args: Sequence[Any], named: dict[str, Any]) -> Any:
        """The operation's result."""
        return func(*args, **named)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in an argument or result."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()
