"""Runs functions on a Ray cluster, whose nodes all have herdlm installed and share one folder (NFS, Lustre)."""

from __future__ import annotations

import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from herdlm.base import processor
from herdlm.base.errors import HerdError, InputError
from herdlm.curate.runner.interface import THREADS, TRIES, Item, Result, as_error, failure

CONNECT_SECONDS = 10.0
AHEAD = 2  # tasks per CPU of the cluster that run or wait for an earlier one


def connect(address: str) -> Any:
    """Connect to the cluster at ``address``, and return the module ``ray``. Call its ``shutdown`` in the end.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("running on a cluster needs Ray", "Install it: pip install 'herdlm[cluster]'") from error
    if ray.is_initialized():
        raise InputError("this process is already connected to a Ray cluster", "Call ray.shutdown() first")
    _check_reachable(address)
    try:
        environment = {"env_vars": THREADS | processor.inherited()}
        ray.init(address=address, log_to_driver=False, configure_logging=False, runtime_env=environment)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        raise _unreachable(address, error) from error
    return ray


def _check_reachable(address: str) -> None:
    """Check that something listens at the address, since Ray ends the whole process if nothing does."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or not colon or not port.isdigit():
        return  # Ray finds it, or reports what is wrong with it
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: BaseException) -> InputError:
    return InputError(
        f"the Ray cluster {address} cannot be reached: {' '.join(str(error).split())}",
        "Start it (ray start --head) or give its address with --cluster",
    )


class RayRunner:
    """The cluster at ``address``: ``auto`` (found from this machine), ``ray://HOST:PORT`` or the head's HOST:PORT."""

    def __init__(self, address: str, shared: Path) -> None:
        self.address, self.shared = address, shared

    def __enter__(self) -> RayRunner:
        self._ray: Any = connect(self.address)
        ray = self._ray
        try:
            self._check_folder()
        except BaseException:
            ray.shutdown()
            raise
        self._call = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_call)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Implements :meth:`~herdlm.curate.runner.interface.Runner.map`."""
        ray = self._ray
        at_once = max(int(ray.cluster_resources().get("CPU", 1)) * AHEAD, 2)
        under_way: deque[tuple[Any, Item]] = deque()
        rest = iter(items)
        try:
            while True:
                while len(under_way) < at_once and (item := next(rest, None)) is not None:
                    under_way.append((self._call.remote(function, item), item))
                if not under_way:
                    return
                reference, item = under_way[0]
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise _died(item, error) from error
                under_way.popleft()
                if "error" in answer:
                    raise as_error(answer["error"], item)
                yield answer["result"]
        finally:
            for reference, _ in under_way:
                ray.cancel(reference, force=True)

    def _check_folder(self) -> None:
        """Check that every node sees the shared folder. A node that does not would write where nobody looks."""
        ray = self._ray
        mark = self.shared / f".seen-{uuid4().hex}"
        mark.touch()
        try:
            for node in ray.nodes():
                if not node["Alive"] or not node["Resources"].get("CPU"):
                    continue
                place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                if not ray.get(ray.remote(num_cpus=0, scheduling_strategy=place)(_sees).remote(str(mark))):
                    raise InputError(
                        f"node {node['NodeManagerAddress']} of the cluster does not see {self.shared}",
                        "Put the run into a folder that all nodes share",
                    )
        finally:
            mark.unlink()


def _died(item: object, error: Exception) -> HerdError:
    return HerdError(
        f"the worker on {item} died {TRIES} times ({type(error).__name__})",
        "It may have run out of memory: give the nodes fewer CPUs or lower curate.max_page_bytes; finished shards "
        "are kept",
    )


def _sees(path: str) -> bool:
    return Path(path).exists()


def _call(function: Callable[[Any], Any], item: Any) -> dict[str, Any]:
    """Run a function on a worker, and return its result or its error."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    try:
        return {"result": function(item)}
    except Exception as error:
        return {"error": failure(error, traceback.format_exc())}
