"""The group of processes that torchrun started: joining it, and doing what one of them does for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, Store, TCPStore
from torch.distributed.distributed_c10d import PrefixStore

from herdlm.base.errors import HerdError
from herdlm.parallel.launcher import STORE, recorded_errors

T = TypeVar("T")


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """The group of the processes that torchrun started, for as long as the block runs; gives this one's rank.

    Without torchrun there is no group and the rank is 0.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cuda:nccl,cpu:gloo" if device == "cuda" else "gloo"
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=_store_of_attempt(), rank=rank, world_size=world)
    try:
        with recorded_errors():
            yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the first of its group, which alone writes shared files; True without a group."""
    return not dist.is_initialized() or dist.get_rank() == 0


def meet() -> None:
    """Wait until every process of the group arrives."""
    if dist.is_initialized():
        dist.barrier()


def from_first(make: Callable[[], T]) -> T:
    """Call ``make`` on the first process and return its result, small and plain data, on all of them.

    Raises:
        HerdError: on every process, if ``make`` raised it.
    """
    if not dist.is_initialized():
        return make()
    box: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            box[0] = make()
        except HerdError as error:
            box[1] = error
    dist.broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    made: T = box[0]
    return made


def _store_of_attempt() -> Store | None:
    """The store through which the processes find each other: a file of our launcher's; None for torch's own.

    When torchrun restarts a group it keeps its store, and gloo would find the addresses of dead processes in it (torch
    2.13). So each attempt gets its own prefix.
    """
    if path := os.environ.get(STORE):
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return FileStore(f"{path}-{attempt}", int(os.environ["WORLD_SIZE"]))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"herdlm/attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@contextmanager
def led_by_first(folders: AbstractContextManager[tuple[Path, Path, dict[str, Any]]]) -> Iterator[tuple[Path, Path]]:
    """Enter ``folders`` on the first process only, give its two folders to all, and leave it when all are done.

    Raises:
        HerdError: on every process, if the first one could not enter.
    """
    made, work = from_first(lambda: folders.__enter__()[:2])
    if not is_first():
        yield made, work
    else:
        try:
            yield made, work
        except BaseException as error:
            folders.__exit__(type(error), error, error.__traceback__)
            raise
        folders.__exit__(None, None, None)
    meet()
