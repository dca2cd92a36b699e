"""Turns documents into token shards that training reads, with any tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.base.standalone import input_folder, standalone
from herdlm.data.documents import Corpus, read_corpora
from herdlm.tokens.documents import split_documents
from herdlm.tokens.sources import SourceConfig, check_sources
from herdlm.tokens.text_shards import write_text_shards
from herdlm.tokens.tokenizer import END_OF_TEXT, Tokenizer


def tokenize(
    corpora: Sequence[Corpus],
    *,
    tokenizer: Path,
    out: Path,
    text_key: str = "text",
    validation_percent: float = 5.0,
    anneal_percent: float = 30.0,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the shards "web", "web-anneal" and "web-validation", or those of each named source, into a new folder.

    Returns:
        Counts of documents and tokens by shard.

    Raises:
        InputError: the tokenizer has no token that ends a text, names are missing or not those of sources, a set would
            be empty, or ``out`` exists.
    """
    names = [corpus.name for corpus in corpora]
    if any(names) and not all(names):
        unnamed = next(corpus.path for corpus in corpora if not corpus.name)
        raise InputError(f"{unnamed} has no name, but others have", "Write NAME=PATH for each, or for none")
    sources = {name: SourceConfig(domains=(name,)) for name in names if name}
    try:
        check_sources(sources)
    except ValueError as error:
        raise InputError(str(error), "Choose another name") from error
    loaded = Tokenizer.load(tokenizer)
    if loaded.eos is None and not loaded.special_tokens.keys() & {END_OF_TEXT, "<|endoftext|>", "</s>"}:
        raise InputError(
            f"{tokenizer} names no token that ends a text", "Name one as eos_token in its tokenizer_config.json"
        )
    settings = {
        "names": names,
        "text_key": text_key,
        "validation_percent": validation_percent,
        "anneal_percent": anneal_percent,
    }
    inputs = {f"corpus-{number}": input_folder(corpus.path) for number, corpus in enumerate(corpora, 1)}
    inputs["tokenizer"] = input_folder(tokenizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    with standalone(out, kind="tokens", name="tokenize", settings=settings, inputs=inputs, seed=seed) as (
        made,
        _,
        counts,
    ):
        split = split_documents(
            read_corpora(corpora, text_key),
            ", ".join(str(corpus.path) for corpus in corpora),
            seed=derive_seed(seed, "split"),
            validation_percent=validation_percent,
            anneal_percent=anneal_percent,
            max_text_megabytes={},
            sources=sources,
        )
        counts.update(write_text_shards(made, loaded, read_corpora(corpora, text_key), split, sources, quiet=quiet))
    return counts
