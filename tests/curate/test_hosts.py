"""Hosts are ranked and dropped by what all their pages hold."""

from __future__ import annotations

from herdlm.curate.steps.hosts import HostCounts, HostsConfig, add_hosts, check_host, rank_hosts

CONFIG = HostsConfig(min_pages=2, max_pii_per_1000_words=10, max_dirty_words_per_1000_words=5)


def test_counts_of_shards_add_up() -> None:
    one = {"b.example": HostCounts(1, 100, 2, 3), "a.example": HostCounts(1, 10, 0, 0)}
    other = {"b.example": HostCounts(2, 50, 1, 0), "c.example": HostCounts(1, 1, 1, 1)}
    total = add_hosts(one, other)
    assert list(total) == ["a.example", "b.example", "c.example"]
    assert total["b.example"] == HostCounts(3, 150, 3, 3)
    assert total == add_hosts(other, one)


def test_the_worst_host_comes_first_and_those_above_one_are_dropped() -> None:
    counts = {
        "clean.example": HostCounts(9, 9000, 3, 1),
        "people.example": HostCounts(2, 1000, 30, 0),
        "adult.example": HostCounts(2, 1000, 0, 40),
        "single.example": HostCounts(1, 1000, 90, 90),
        "empty.example": HostCounts(2, 0, 0, 0),
    }
    ranked = rank_hosts(counts, CONFIG)
    assert [host for host, _ in ranked] == [
        "single.example",
        "adult.example",
        "people.example",
        "clean.example",
        "empty.example",
    ]
    equal = {host: HostCounts(2, 1000, 1, 0) for host in ("c.example", "a.example", "b.example")}
    assert [host for host, _ in rank_hosts(equal, CONFIG)] == ["a.example", "b.example", "c.example"]
    reasons = {host: check_host(count, CONFIG) for host, count in counts.items()}
    assert reasons == {
        "clean.example": None,
        "people.example": "host_with_personal_data",
        "adult.example": "host_with_sexual_content",
        "single.example": None,  # one page is judged by itself
        "empty.example": None,
    }
    assert all((excess > 1) == (reasons[host] is not None) for host, excess in ranked if counts[host].pages > 1)
