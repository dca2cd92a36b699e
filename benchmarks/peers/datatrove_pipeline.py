"""The pipeline that benchmarks/curate.py compares with, in datatrove's own pieces and defaults.

    python datatrove_pipeline.py ARCHIVES OUT LANGUAGE_MODEL [--workers 2]

WARC, main content by trafilatura, language, Gopher's repetition and quality rules, MinHash, Parquet. Prints what each
stage took as JSON. Needs ``datatrove[io,processing]``, ``spacy``, ``lxml_html_clean`` and ``xxhash<4``.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LanguageFilter
from datatrove.pipeline.readers import ParquetReader, WarcReader
from datatrove.pipeline.writers import ParquetWriter

LANGUAGES = ["en", "de", "fr", "es"]
BUCKETS = 14


def main() -> None:
    """Run the stages one after the other, as datatrove's own MinHash example does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archives")
    parser.add_argument("out", type=Path)
    parser.add_argument("language_model")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    language = LanguageFilter(LANGUAGES, language_threshold=0.5)
    language.model.MODEL_URL = options.language_model  # else it would be downloaded
    out, config = options.out, MinhashConfig()
    pages, signatures, buckets, removed = (str(out / name) for name in ("pages", "signatures", "buckets", "removed"))
    tasks = len(list(Path(options.archives).glob("*.warc.gz")))
    stages: dict[str, tuple[int, list[Any]]] = {
        "pages": (
            tasks,
            [
                WarcReader(options.archives, glob_pattern="*.warc.gz"),
                Trafilatura(),
                language,
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                ParquetWriter(pages),
            ],
        ),
        "signatures": (tasks, [ParquetReader(pages), MinhashDedupSignature(signatures, config)]),
        "buckets": (BUCKETS, [MinhashDedupBuckets(signatures, buckets, config=config)]),
        "clusters": (1, [MinhashDedupCluster(buckets, removed, config)]),
        "result": (tasks, [ParquetReader(pages), MinhashDedupFilter(removed), ParquetWriter(str(out / "result"))]),
    }
    told: dict[str, dict[str, float]] = {}
    for name, (count, pipeline) in stages.items():
        begin, cpu = time.perf_counter(), _cpu_seconds()
        LocalPipelineExecutor(
            pipeline, tasks=count, workers=min(options.workers, count), logging_dir=str(out / "logs" / name)
        ).run()
        told[name] = {"seconds": time.perf_counter() - begin, "cpu_seconds": _cpu_seconds() - cpu}
    print(json.dumps(told))


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
