"""Writes documents as token shards: each source's text for training, annealing and validation."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from herdlm.base.progress import Progress
from herdlm.tokens.documents import Document, Split
from herdlm.tokens.shards import ShardIndex, ShardWriter
from herdlm.tokens.sources import ANNEAL, VALIDATION, WEB
from herdlm.tokens.tokenizer import Tokenizer


def write_text_shards(
    out: Path,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    split: Split,
    sources: Collection[str],
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write a shard for each set of ``split`` and return the shards' counts by name.

    A document's tokens stand between the tokenizer's ids that begin and end a text. Without ``sources``, all documents
    are those of "web"; "web-validation" holds the held-out documents of all sources.
    """
    begin, end = tokenizer.begin, tokenizer.end
    open_shard = partial(ShardWriter, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content())
    names = [f"{name}{part}" for name in sources or (WEB,) for part in ("", ANNEAL)]
    names += [f"{name}{VALIDATION}" for name in (WEB, *sources)]
    writers = {name: open_shard(out / name) for name in names}
    with Progress("tokens", len(split.train) + len(split.validation), "documents", quiet=quiet) as progress:
        for document in documents:
            wanted = split.shards(document.id)
            if not wanted:
                continue
            tokens = [*begin, *tokenizer.encode(document.text), end]
            for name in wanted:
                writers[name].add(tokens, text_bytes=len(document.text.encode()))
            progress.advance()
    return {name: shard_counts(writer.close()) for name, writer in writers.items()}


def shard_counts(index: ShardIndex) -> dict[str, Any]:
    """What a manifest says of a shard."""
    return {
        "documents": index.documents,
        "tokens": index.tokens,
        "target_tokens": index.target_tokens,
        "bytes_per_token": round(index.text_bytes / max(index.tokens, 1), 3),
    }
