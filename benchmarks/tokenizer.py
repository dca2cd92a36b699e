"""Training and encoding speed of the tokenizer against its backend alone and tiktoken, and characters per token.

    HERDLM_DATA=... python benchmarks/tokenizer.py [--megabytes 24] [--vocab 32000 64000] [--out benchmarks/results]

Texts are the English documents that a default curation keeps of ``web/docs.warc.gz``: every tenth is held out, and
encoded by each arm in turn with the merges that herdlm trained. tiktoken is given the same merges as ranks and the same
rule for splitting, and the report has the share of documents to which it gives the same ids; where tiktoken is not
installed, its rows say so. Nothing trains byte-level BPE in
tiktoken but a teaching example, so training is compared with ``tokenizers`` alone. All on one thread; encoding also in
batches on all cores. The Llama 3 report gives 3.94 characters per token for English with 128,256 tokens (3.2); that
corpus is not ours, so the figure beside it says how this corpus compares, not whose tokenizer is better.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from versions import ABSENT, version

from herdlm.tokens.tokenizer import Tokenizer, TokenizerConfig, split_pattern, train_tokenizer

LLAMA3_CHARACTERS = 3.94
HELD_OUT = 10
TIKTOKEN = "tiktoken, one by one"


def english_texts(data: Path, megabytes: float) -> tuple[list[str], list[str]]:
    """Training and held-out documents, ``megabytes`` of UTF-8 together at the most."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "corpus"
        command = [
            sys.executable,
            "-m",
            "herdlm.cli",
            "curate",
            str(data / "web" / "docs.warc.gz"),
            "--out",
            str(out),
            "--set",
            'curate.language.keep=["en"]',
            "--quiet",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        texts: list[str] = []
        size = 0
        for path in sorted((out / "documents").glob("*.parquet")):
            for text in pq.read_table(path, columns=["text"])["text"].to_pylist():
                if size < megabytes * 1e6:
                    texts.append(text)
                    size += len(text.encode())
    return [t for i, t in enumerate(texts) if i % HELD_OUT], texts[::HELD_OUT]


def backend_training(texts: list[str], vocab: int) -> Any:
    """``tokenizers`` alone with the same rule and size."""
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split_pattern()), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def as_tiktoken(tokenizer: Tokenizer) -> Any:
    """tiktoken with the same tokens in the same order of merging."""
    import tiktoken

    ranks = {}
    for id in range(tokenizer.backend.get_vocab_size(with_added_tokens=False)):
        if piece := tokenizer.token_bytes(id):
            ranks.setdefault(piece, id)
    return tiktoken.Encoding("herdlm", pat_str=split_pattern(), mergeable_ranks=ranks, special_tokens={})


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(train: list[str], held_out: list[str], vocab: int, rounds: int) -> dict[str, Any]:
    """One vocabulary."""
    megabytes = sum(len(text.encode()) for text in train) / 1e6
    tokenizer: Tokenizer | None = None

    def ours() -> None:
        nonlocal tokenizer
        tokenizer = train_tokenizer(train, TokenizerConfig(vocab_size=vocab))

    training = {"herdlm": timed(ours), "tokenizers": timed(lambda: backend_training(train, vocab))}
    assert tokenizer
    trained = tokenizer
    arms: dict[str, Callable[[], list[list[int]]]] = {
        "herdlm, one by one": lambda: [trained.encode(text) for text in held_out],
        "herdlm, in batches": lambda: trained.encode_batch(held_out),
        "tokenizers, one by one": lambda: [trained.backend.encode(text).ids for text in held_out],
    }
    if version("tiktoken") != ABSENT:
        peer = as_tiktoken(trained)
        arms[TIKTOKEN] = lambda: [peer.encode_ordinary(text) for text in held_out]
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            seconds[name].append(timed(arm))
    held_megabytes = sum(len(text.encode()) for text in held_out) / 1e6
    ids = arms["herdlm, one by one"]()
    agreement: float | str = f"{ABSENT}: skipped"
    if TIKTOKEN in arms:
        agreement = statistics.fmean(one == other for one, other in zip(ids, arms[TIKTOKEN](), strict=True))
    characters = sum(map(len, held_out)) / sum(map(len, ids))
    return {
        "vocabulary": trained.vocab_size,
        "training, MB per CPU second": {name: megabytes / spent for name, spent in training.items()},
        "encoding, MB per CPU second": {TIKTOKEN: f"{ABSENT}: skipped"}
        | {name: held_megabytes / statistics.median(spent) for name, spent in seconds.items()},
        "documents to which tiktoken gives the same ids": agreement,
        "characters per token": characters,
        "of Llama 3's on its English sample": characters / LLAMA3_CHARACTERS,
    }


def main() -> None:
    """Measure every vocabulary and print one JSON report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=float, default=24)
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_000, 64_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "HERDLM_DATA" not in os.environ:
        sys.exit("HERDLM_DATA is not set: name the folder that holds web/docs.warc.gz")
    train, held_out = english_texts(Path(os.environ["HERDLM_DATA"]), options.megabytes)
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("tokenizers", "tiktoken")},
        },
        "training megabytes": sum(len(text.encode()) for text in train) / 1e6,
        "held-out megabytes": sum(len(text.encode()) for text in held_out) / 1e6,
        "vocabularies": [measure(train, held_out, vocab, options.rounds) for vocab in options.vocab],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        (options.out / f"tokenizer-cpu-{report['date']}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
