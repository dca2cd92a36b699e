"""The same curation on a Ray cluster of two nodes and on processes of this machine: identical bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from herdlm.base.errors import HerdError, InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.pipeline import curate
from herdlm.curate.steps.own import OwnStepConfig
from tests.curate.crawls import Write, article, page, record, small_crawl, zipped
from tests.curate.runner.work import Item, do, times
from tests.curate.test_curate import content
from tests.ray_cluster import two_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes on this machine, a worker each; its address."""
    with two_nodes() as cluster:
        yield cluster.address


def test_a_cluster_makes_the_same_corpus(address: str, write: Write, tmp_path: Path) -> None:
    pages = [
        record(f"https://x.example/{i}", page(article("en", f"{i % 50}"), article("en", f"{i % 50} more")))
        for i in range(60)
    ]
    crawl = write("c.warc.gz", zipped(*small_crawl(), *pages)[:-9])
    contents = []
    for name, cluster in (("here", None), ("there", address)):
        out = tmp_path / name
        out.mkdir()
        config = CurateConfig(shard_megabytes=0.004, shuffle_megabytes=0.001, cluster=cluster)
        curate([str(crawl)], out, config, quiet=True)
        contents.append(content(out))
    assert sum(name.startswith("documents/") for name in contents[0]) > 5
    assert contents[0] == contents[1]


def test_a_cluster_runs_the_users_own_steps(address: str, write: Write, tmp_path: Path) -> None:
    pages = [
        record(f"https://x.example/{i}", page(article("en", f"{i}"), article("en", f"{i} more"))) for i in range(6)
    ]
    crawl = write("c.warc.gz", zipped(*pages))
    own = OwnStepConfig(step="tests.curate.runner.work:DropOdd", settings={"reason": "odd_page"})
    (tmp_path / "out").mkdir()
    config = CurateConfig(shard_megabytes=0.001, cluster=address, steps={"mine": own})
    funnel = curate([str(crawl)], tmp_path / "out", config, quiet=True)
    (row,) = [step for step in funnel["steps"] if step["step"] == "mine"]
    assert row["dropped"] == {"odd_page": row["dropped"]["odd_page"]}
    assert row["dropped"]["odd_page"]["documents"] == 3


def test_order_deaths_and_errors_are_as_with_processes(address: str, tmp_path: Path) -> None:
    from herdlm.curate.runner.cluster import RayRunner

    with RayRunner(address, tmp_path) as runner:
        items = [Item(i, tmp_path, deaths=int(i == 2), seconds=0.5 if i == 0 else 0.0) for i in range(8)]
        assert list(runner.map(do, items)) == [(i, "1") for i in range(8)]
        assert [times(tmp_path, i) for i in range(8)] == [1, 1, 2, 1, 1, 1, 1, 1]
        with pytest.raises(HerdError, match=r"the worker on item 9 died 2 times"):
            list(runner.map(do, [Item(9, tmp_path, deaths=9)]))
        assert times(tmp_path, 9) == 2
        with pytest.raises(InputError, match="item 10 is wrong"):
            list(runner.map(do, [Item(10, tmp_path, error="input")]))
        with pytest.raises(HerdError, match="item 11 failed: ValueError: no luck"):
            list(runner.map(do, [Item(11, tmp_path, error="no luck")]))


def test_a_cluster_that_is_not_there_is_the_users_error(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from herdlm.curate.runner.cluster import RayRunner

    for gone in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(InputError, match=f"the Ray cluster {gone} cannot be reached"):
            RayRunner(gone, tmp_path).__enter__()
