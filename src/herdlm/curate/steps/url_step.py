"""Drops pages whose address is on a block list."""

from __future__ import annotations

from functools import lru_cache

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig, UrlConfig
from herdlm.curate.steps.url import BlockLists


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Drop pages of blocked domains and those with a blocked word in their address."""
    lists = _lists(config.url)
    return Outcome([lists.check(url) if url else None for url in batch["url"]])


def check(config: CurateConfig) -> None:
    """Read the lists; InputError where one is missing or damaged."""
    _lists(config.url)


@lru_cache(maxsize=1)
def _lists(config: UrlConfig) -> BlockLists:
    return BlockLists.load(config.blocked_domains, config.blocked_words)
