"""Writes a trained model as a Hugging Face folder that works as it is: tokenizer, chat template, token ids, log."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from herdlm.model.hf import CONFIG, EXPORTS, GENERATION, save_folder
from herdlm.model.hf_config import TOKEN_IDS, config_from_hf
from herdlm.model.transformer import Transformer
from herdlm.model.weights import read_json, write_json
from herdlm.parallel.gather import save_whole
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.processes import is_first
from herdlm.tokens.chat_format import ChatFormat, generation_settings
from herdlm.tokens.chat_template import read_templates
from herdlm.tokens.tokenizer import TOKENIZER_FILES
from herdlm.tokens.tokenizer_files import read_settings
from herdlm.train.track import FOLDER

TOKENIZER_CONFIG = "tokenizer_config.json"


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
    generation = token_settings(tokenizer, ChatFormat.load(tokenizer, template), scores=shape.head == "score")
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
    if template is not None:
        _drop_template(out)
    if format.template_text is not None and (template is not None or not read_templates(out, read_settings(out))):
        (out / "chat_template.jinja").write_text(format.template_text, encoding="utf-8")
    _name_pad(out, format, pad)


def complete_folder(folder: Path) -> None:
    """Add what other programs need to a model folder, where it has a tokenizer: stop tokens and a pad token."""
    if not (folder / "tokenizer.json").is_file():
        return
    format, config = ChatFormat.load(folder), read_json(folder / CONFIG)
    generation = token_settings(folder, format, scores=config_from_hf(config, str(folder / CONFIG)).head == "score")
    write_json(folder / GENERATION, generation)
    _name_pad(folder, format, generation.get("pad_token_id"))
    write_json(folder / CONFIG, config | {key: generation.get(key) for key in TOKEN_IDS})


def token_settings(tokenizer: Path, format: ChatFormat, *, scores: bool) -> dict[str, Any]:
    """The content of generation_config.json; a reward model's pad token does not end answers."""
    generation = generation_settings(tokenizer, format)
    return generation | ({"pad_token_id": padding_before_scores(format)} if scores else {})


def _drop_template(folder: Path) -> None:
    """Remove the chat templates that a copied tokenizer came with."""
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    path = folder / TOKENIZER_CONFIG
    if path.is_file() and "chat_template" in (settings := read_json(path)):
        write_json(path, {key: value for key, value in settings.items() if key != "chat_template"})


def _name_pad(folder: Path, format: ChatFormat, pad: int | None) -> None:
    """Name the pad token with the id ``pad`` where the folder names another one or none."""
    token = None if pad is None else format.tokenizer.backend.id_to_token(pad)
    if token is None or format.tokenizer.named.get("pad_token") == token:
        return
    for name in (TOKENIZER_CONFIG, "special_tokens_map.json"):
        path = folder / name
        settings = read_json(path) if path.is_file() else {}
        if name == TOKENIZER_CONFIG or "pad_token" in settings:
            write_json(path, settings | {"pad_token": token})


def padding_before_scores(format: ChatFormat) -> int:
    """A pad id for reward models. transformers reads the score at the last token that is no padding.

    A pad token that also ends an answer would hide that end, so another special token takes its place.
    """
    special = format.tokenizer.special_tokens.values()
    return next((id for id in (format.pad, *format.begin, *special) if id not in format.stop_tokens), format.pad)
