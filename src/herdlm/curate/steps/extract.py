"""Finds the main text of a page and drops pages without one."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.extract import decode
from herdlm.curate.extract import extract as extract_text


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``text``. Source code is decoded and otherwise left as it is."""
    columns = (batch["payload"], batch["charset"], batch["kind"])
    found = [
        _code(payload) if kind == "code" else extract_text(payload, charset, kind == "html")
        for payload, charset, kind in zip(*columns, strict=True)
    ]
    return Outcome([reason for _, reason in found], {"text": [text for text, _ in found]})


def _code(payload: bytes) -> tuple[str, str | None]:
    text = decode(payload, "")
    if text is None:
        return "", "wrong_encoding"
    text = text.replace("\r\n", "\n").strip("\n")
    return (text, None) if text.strip() else ("", "no_text")
