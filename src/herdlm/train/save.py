"""Writes a trained model as a Hugging Face folder that works as it is: tokenizer, chat template, token ids, log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from herdlm.model.hf import EXPORTS, save_folder
from herdlm.model.transformer import Transformer
from herdlm.parallel.gather import save_whole
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.processes import is_first
from herdlm.tokens.chat_format import ChatFormat, generation_settings
from herdlm.tokens.tokenizer import TOKENIZER_FILES
from herdlm.train.track import FOLDER


def save_model(
    model: Transformer | ParallelModel,
    out: Path,
    *,
    tokenizer: Path,
    work: Path,
    dtype: str = "float32",
    template: str | None = None,
) -> None:
    """Write a model into ``out`` in ``dtype``, with the files and stop tokens of its tokenizer and the log in ``work``.

    Every process calls this; the first one writes.

    Args:
        template: the chat template that the model was trained with, in place of the tokenizer's: its text, or a name of
            one of ours.
    """
    shape = model.shape if isinstance(model, ParallelModel) else model.config
    generation = generation_settings(tokenizer, template)
    if shape.head == "score":
        generation |= {"pad_token_id": padding_before_scores(ChatFormat.load(tokenizer, template))}
    if isinstance(model, ParallelModel):
        save_whole(model, out, dtype=EXPORTS[dtype], generation=generation)
        if not is_first():
            return
    else:
        save_folder(model, out, dtype=EXPORTS[dtype], generation=generation)
    save_format(tokenizer, out, template=template, pad=generation.get("pad_token_id"))
    copy_log(work, out)


def copy_log(work: Path, out: Path) -> None:
    """Copy the log of a training."""
    log, board = work / "events.jsonl", work / FOLDER
    if log.exists():
        shutil.copyfile(log, out / "events.jsonl")
    if board.exists():
        shutil.copytree(board, out / FOLDER, dirs_exist_ok=True)


def copy_tokenizer(folder: Path, out: Path) -> None:
    """Copy the files of a folder's tokenizer and chat template."""
    for name in TOKENIZER_FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)


def save_format(tokenizer: Path, out: Path, *, template: str | None = None, pad: int | None = None) -> None:
    """Write a tokenizer's files, with the chat template that is used, and a pad token, which batches need.

    Args:
        template: see :func:`save_model`.
        pad: the id that config.json names, if any.
    """
    copy_tokenizer(tokenizer, out)
    format = ChatFormat.load(tokenizer, template)
    path = out / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    before = dict(settings)
    if template is not None:
        settings.pop("chat_template", None)
        (out / "chat_template.json").unlink(missing_ok=True)
    has_own = "chat_template" in settings or any(
        (out / f"chat_template.{kind}").is_file() for kind in ("jinja", "json")
    )
    if format.template_text is not None and (template is not None or not has_own):
        (out / "chat_template.jinja").write_text(format.template_text, encoding="utf-8")
    if pad is not None and (token := format.tokenizer.backend.id_to_token(pad)) is not None:
        named = settings.get("pad_token")
        if (named.get("content") if isinstance(named, dict) else named) != token:
            settings["pad_token"] = token
    if settings != before:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def padding_before_scores(format: ChatFormat) -> int:
    """A pad id for reward models. transformers reads the score at the last token that is no padding.

    A pad token that also ends an answer would hide that end, so another special token takes its place.
    """
    special = format.tokenizer.special_tokens.values()
    return next((id for id in (format.pad, *format.begin, *special) if id not in format.stop_tokens), format.pad)
