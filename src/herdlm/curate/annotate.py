"""What the workers do: take raw pages through the steps that need one page alone, up to the first that drops it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from herdlm.curate import funnel
from herdlm.curate.config import CurateConfig
from herdlm.curate.duplicates.exact import digest
from herdlm.curate.extract import extract
from herdlm.curate.heuristics import check_text
from herdlm.curate.language import check_language, identify
from herdlm.curate.quality import quality
from herdlm.curate.words import normalize, split_words

ANNOTATED_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.large_string()),
        ("url", pa.large_string()),
        ("text", pa.large_string()),
        ("language", pa.large_string()),
        ("source", pa.large_string()),
        ("date", pa.large_string()),
        ("language_score", pa.float64()),
        ("quality", pa.float64()),
        ("words", pa.int64()),
        ("bytes", pa.int64()),
        ("raw_bytes", pa.int64()),
        ("read_bytes", pa.int64()),
        ("step", pa.large_string()),
        ("reason", pa.large_string()),
        ("digest", pa.large_string()),  # null where dropped, like the next
        ("normalized", pa.large_string()),
    ]
)
_CARRIED = ("row", "id", "url", "source", "date", "read_bytes")


def annotate(batch: pa.RecordBatch, config: CurateConfig) -> pa.RecordBatch:
    """``PAGE_SCHEMA`` -> ``ANNOTATED_SCHEMA``, row by row; ``step`` and ``reason`` are null for pages still in."""
    rows = [_annotate_page(page, config) for page in batch.to_pylist()]
    return pa.RecordBatch.from_pylist(rows, schema=ANNOTATED_SCHEMA)


def _annotate_page(page: dict[str, Any], config: CurateConfig) -> dict[str, Any]:
    row = {name: page[name] for name in _CARRIED}
    row |= {"raw_bytes": len(page["payload"]), "text": "", "language": "", "language_score": 0.0, "quality": 0.0}
    row |= {"words": 0, "bytes": 0}
    if page["fault"] is not None:
        return row | {"step": funnel.READ, "reason": page["fault"]}
    text, reason = extract(page["payload"], page["charset"], page["html"])
    if reason is not None:
        return row | {"step": funnel.EXTRACT, "reason": reason}
    language, score = identify(text)
    row |= {"text": text, "language": language, "language_score": score}
    row |= {"words": len(split_words(text)), "bytes": len(text.encode()), "quality": quality(text, language)}
    reason = check_language(language, score, config)
    if reason is not None:
        return row | {"step": funnel.LANGUAGE, "reason": reason}
    reason = check_text(text, language, config.heuristics)
    if reason is not None:
        return row | {"step": funnel.HEURISTICS, "reason": reason}
    normalized = normalize(text)
    return row | {"digest": digest(normalized), "normalized": normalized}
