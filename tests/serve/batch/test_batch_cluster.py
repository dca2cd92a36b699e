"""Workers on a Ray cluster of two nodes answer as those of this machine, also when one is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from herdlm.base.errors import InputError
from herdlm.serve.batch.run import generate_batch
from tests.ray_cluster import two_nodes
from tests.serve.batch.conftest import Write, mixed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes on this machine, a worker each."""
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def address(cluster: Any) -> str:
    """The cluster's address."""
    finished: str = cluster.address
    return finished


def _actors() -> list[int]:
    """Process ids of herdlm's actors on this machine."""
    finished = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                finished.append(int(folder.name))
        except OSError:
            continue
    return finished


def test_a_cluster_answers_the_same_and_survives_the_death_of_a_worker(
    address: str, exact: Path, write: Write, tmp_path: Path
) -> None:
    lines = [{"prompt": f"cow {i}", "max_tokens": 20 + 4 * i, "min_tokens": 20 + 4 * i} for i in range(24)]
    prompts = write([*lines, *mixed(12)])
    generate_batch(exact, prompts, tmp_path / "here", quiet=True)
    killed: list[int] = []

    def kill_when_busy() -> None:
        part = tmp_path / "there.part"
        while not killed:
            time.sleep(0.02)
            if part.exists() and len(part.read_bytes().splitlines()) > 2 and (actors := _actors()):
                killed.append(actors[0])
                os.kill(actors[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_when_busy, daemon=True)
    thread.start()
    summary = generate_batch(exact, prompts, tmp_path / "there", cluster=address, quiet=True)
    thread.join()
    assert (summary.prompts, summary.deaths) == (36, 1)
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


def test_what_the_cluster_cannot_do_is_refused(address: str, exact: Path, write: Write, tmp_path: Path) -> None:
    prompts = write(mixed(2))
    for wrong, message in (
        ({"workers": 9}, "9 workers do not fit on 2 CPUs"),
        ({"device": "cuda"}, "no GPU"),
        ({"tensor_parallel": 2}, "no node with 2 CPUs"),
        ({"dtype": "float8"}, "dtype"),
    ):
        with pytest.raises(InputError, match=message):
            generate_batch(exact, prompts, tmp_path / "out", cluster=address, quiet=True, **wrong)  # type: ignore[arg-type]
    gone = address.rpartition(":")[0] + ":1"
    with pytest.raises(InputError, match="cannot be reached"):
        generate_batch(exact, prompts, tmp_path / "out", cluster=gone, quiet=True)


def test_a_worker_may_be_a_group_of_processes_on_a_node_that_has_room(
    cluster: Any, exact: Path, write: Write, tmp_path: Path
) -> None:
    prompts = write([{"prompt": f"cow {i}", "max_tokens": 20} for i in range(6)])
    generate_batch(exact, prompts, tmp_path / "here", quiet=True)
    node = cluster.add_node(num_cpus=3, object_store_memory=100 << 20)
    cluster.wait_for_nodes()
    try:
        with pytest.raises(InputError, match="2 workers of 2 processes do not fit on 5 CPUs"):
            generate_batch(exact, prompts, tmp_path / "there", cluster=cluster.address, pipeline_parallel=2, workers=2)
        generate_batch(exact, prompts, tmp_path / "there", cluster=cluster.address, pipeline_parallel=2, quiet=True)
    finally:
        cluster.remove_node(node)
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
