"""Memory by what it is for, from the tensors' storages as they come and go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from herdlm.plan.dryrun.observe import tensors_in
from herdlm.plan.dryrun.private import in_backward


class MemoryMeter:
    """Counts bytes of storages from their first use to their end.

    What is allocated in a forward pass is an activation, what in a backward pass temporary, unless :meth:`category` or
    :meth:`assign` says otherwise.

    Args:
        counts: whether a tensor is on the device that is measured; default: all are.

    Attributes:
        now, highest: bytes, and most bytes, by category.
        at_peak: bytes by category when their sum was largest.
    """

    def __init__(self, counts: Callable[[Tensor], bool] = lambda tensor: True) -> None:
        self.counts = counts
        self.now: dict[str, int] = {}
        self.highest: dict[str, int] = {}
        self.at_peak: dict[str, int] = {}
        self.total = self.peak = 0
        self._held: dict[int, tuple[int, str, Any]] = {}  # by a storage's address
        self._category: str | None = None

    def seen(self, operation: Any, args: Sequence[Any], named: dict[str, Any], result: Any) -> None:
        """See :class:`herdlm.plan.dryrun.observe.Meter`."""
        for tensor in tensors_in(result):
            if self.counts(tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._held:
                    self._hold(storage, self._category or ("temporary" if in_backward() else "activations"))

    @contextmanager
    def category(self, name: str) -> Iterator[None]:
        """What is allocated meanwhile belongs to ``name``."""
        before, self._category = self._category, name
        try:
            yield
        finally:
            self._category = before

    def assign(self, tensor: Tensor | None, category: str) -> None:
        """A tensor belongs to ``category`` from now on."""
        if tensor is None:
            return
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if not self.counts(tensor):
            return
        storage = tensor.untyped_storage()
        known = self._held.get(storage._cdata)
        if known is None:
            self._hold(storage, category)
        elif known[1] != category:
            self._held[storage._cdata] = (known[0], category, known[2])
            self._add(known[1], -known[0])
            self._add(category, known[0])

    def forget_peaks(self) -> None:
        """Begin the peaks anew from what is held now."""
        self.peak, self.at_peak, self.highest = self.total, dict(self.now), dict(self.now)

    @contextmanager
    def resizes(self) -> Iterator[None]:
        """Also see storages that are resized, as FSDP does to free weights; operations do not show it."""
        original = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            out = original(storage, size)
            if (known := self._held.get(storage._cdata)) is not None:
                self._held[storage._cdata] = (storage.nbytes(), known[1], known[2])
                self._add(known[1], storage.nbytes() - known[0])
            return out

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]

    def _hold(self, storage: torch.UntypedStorage, category: str) -> None:
        key = storage._cdata
        self._held[key] = (storage.nbytes(), category, weakref.ref(storage, partial(self._freed, key)))
        self._add(category, storage.nbytes())

    def _freed(self, key: int, _: Any) -> None:
        size, category, _ = self._held.pop(key)
        self._add(category, -size)

    def _add(self, category: str, size: int) -> None:
        now = self.now[category] = self.now.get(category, 0) + size
        self.total += size
        if now > self.highest.get(category, 0):
            self.highest[category] = now
        if self.total > self.peak:
            self.peak, self.at_peak = self.total, dict(self.now)
