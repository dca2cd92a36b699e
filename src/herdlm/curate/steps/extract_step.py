"""Finds the main text of a page and drops pages without one."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.extract import decode, extract_all


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``text``. Source code is decoded and otherwise left as it is."""
    pages = list(zip(batch["payload"], batch["charset"], batch["kind"], strict=True))
    texts = iter(
        extract_all([(payload, charset, kind == "html") for payload, charset, kind in pages if kind != "code"])
    )
    found = [_code(payload) if kind == "code" else next(texts) for payload, _, kind in pages]
    return Outcome([reason for _, reason in found], {"text": [text for text, _ in found]})


def _code(payload: bytes) -> tuple[str, str | None]:
    text = decode(payload, "")
    if text is None:
        return "", "wrong_encoding"
    text = text.replace("\r\n", "\n").strip("\n")
    return (text, None) if text.strip() else ("", "no_text")
