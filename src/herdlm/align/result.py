"""What a job leaves behind: a model or an adapter that works as it is, and figures with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from herdlm.align.job import Model, Run
from herdlm.base.artifact import write_text_durably
from herdlm.evaluate.intervals import Estimate
from herdlm.model.adapter_folder import save_adapter
from herdlm.model.hf import GENERATION
from herdlm.model.lora import merge_lora
from herdlm.model.start import open_start
from herdlm.model.transformer import Transformer
from herdlm.model.weights import write_json
from herdlm.parallel.gather import save_whole_adapter
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.processes import is_first
from herdlm.train.export import ADAPTER
from herdlm.train.milestones import keep_milestones
from herdlm.train.save import copy_log, save_format, save_model, token_settings

FIGURES = "figures.json"


def save(run: Run, model: Model) -> None:
    """Write the trained model, or its adapter alone, with all that it needs. Every process calls this.

    The adapters of a model that is whole in this process are merged afterwards.
    """
    tokenizer, template = run.start.tokenizer, run.job.template
    if run.job.lora is not None and run.start.adapter is None:
        _save_adapter(model, run.out / ADAPTER if run.job.merge else run.out, base=str(run.start.folder.resolve()))
    if isinstance(model, Transformer) and run.job.lora is not None:
        merge_lora(model)
    if run.job.merge:
        save_model(
            model, run.out, tokenizer=tokenizer, work=run.work, dtype=run.config.train.save_dtype, template=template
        )
    elif is_first():
        generation = token_settings(tokenizer, run.format, scores=run.method == "reward")
        save_format(tokenizer, run.out, template=template, pad=generation.get("pad_token_id"))
        write_json(run.out / GENERATION, generation)
        copy_log(run.work, run.out)
    keep_milestones(run.work, run.out, run.config.train)


def _save_adapter(model: Model, folder: Path, base: str) -> None:
    if isinstance(model, ParallelModel):
        save_whole_adapter(model, folder, base=base)
    else:
        save_adapter(model, folder, base=base)


def finished(run: Run, model: Model) -> Transformer:
    """The trained model, whole in this process: itself, or read from the folder that was written."""
    return model if isinstance(model, Transformer) else open_start(run.out).load(run.device)


def estimate_json(estimate: Estimate) -> dict[str, float]:
    """An estimate as JSON."""
    return {name: round(value, 6) for name, value in asdict(estimate).items()}


def write_figures(run: Run, figures: Mapping[str, Estimate]) -> None:
    """Write the figures of the trained model that a promotion may compare, from the first process."""
    if is_first() and figures and run.writes_figures:
        text = json.dumps({name: estimate_json(value) for name, value in figures.items()}, indent=2)
        write_text_durably(run.out / FIGURES, text + "\n")


def shown(estimate: Estimate, form: str = ".3f") -> str:
    """An estimate with its interval, in words."""
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"
