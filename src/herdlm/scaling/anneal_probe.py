"""Measures what a small data set is worth: a half-trained model is annealed with it and without it.

Llama 3 report, section 3.1.3: the learning rate of a half-trained 8B falls linearly to zero over 40B tokens, of which
the new set has 30% and the default mix 70%. The other arm reads the default mix alone. Both start from the same
weights, with new moments of the optimizer, and read the same rows of the default mix in the same order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.evaluate.paired import paired_loss_difference, row_losses
from herdlm.generate.load import pick_device
from herdlm.model.hf import load_for_training
from herdlm.parallel.processes import from_first, is_first, meet, process_group
from herdlm.pretrain.batches import open_batches
from herdlm.pretrain.config import PretrainConfig, timeline
from herdlm.pretrain.job import PretrainJob
from herdlm.tokens.mixture import FirstSteps, Mixture, PretrainBatches
from herdlm.tokens.rows import Source
from herdlm.tokens.shards import Shard
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.save import save_model
from herdlm.train.schedules import learning_rate

NEW_SHARE = 0.3
WARMUP_SHARE = 0.05  # of the probe, as the optimizer's moments start from zero
DEFAULT_SET = "web-validation"
NEW = "new set"


def anneal_probe(
    job: PretrainJob,
    *,
    tokens: Path,
    tokenizer: Path,
    new: Path,
    held_out: Mapping[str, Path],
    out: Path,
    half_trained: Path | None = None,
    steps: int | None = None,
    new_share: float = NEW_SHARE,
) -> dict[str, Any]:
    """Measure what the shard ``new`` is worth to the job's model; returns the content of ``out/probe.json``.

    Under torchrun, models are trained and measured in the recipe's layout, and the first process returns the result.

    Args:
        tokens: the recipe's token shards, including ``web-validation``, on which the arms are always compared.
        held_out: further shards to compare on, by name, such as held-out text of the new set's kind.
        half_trained: a model folder to start from; by default the first half of the recipe's run is trained.
        steps: of the annealing; by default the recipe's ``anneal_steps``.
        new_share: the share of rows from the new set.

    Raises:
        InputError: the model or the steps cannot be used, or a shard was made with another tokenizer.
    """
    with process_group(pick_device(job.device).type):
        training, words = _training(job), Tokenizer.load(tokenizer)
        steps = training.anneal_steps if steps is None else steps
        half = job.pretrain.steps // 2
        sets = {DEFAULT_SET: tokens / DEFAULT_SET, **held_out}
        from_first(lambda: _check(job.pretrain, steps, half, new_share, out, trains_half=half_trained is None))
        for folder in (new, *sets.values()):
            if Shard(folder).index.tokenizer != words.content():
                raise InputError(
                    f"{folder} was made with another tokenizer than {tokenizer}",
                    "Tokenize its text again with that one",
                )
        work = out.with_name(f".{out.name}.working")
        made = work / "out"
        if is_first():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
        meet()
        seed, pad = derive_seed(job.seed, "pretrain"), words.pad
        batches = open_batches(job.batching(), tokens, seed=seed, pad=pad)
        if half_trained is None:
            half_trained = _train_half(job, FirstSteps(batches, half), seed=seed, work=work, tokenizer=tokenizer)
        rate, rows_per_step = learning_rate(half, job.pretrain.steps, training), batches.rows_of(half)
        warmup = max(round(WARMUP_SHARE * steps), 1)
        annealing = training.model_validate(
            training.model_dump()
            | {"peak_lr": rate, "warmup_steps": warmup, "decay": "constant", "decay_steps": None}
            | {"anneal_steps": steps - warmup, "average_last": 0.0}
        )
        losses: dict[str, dict[str, Any]] = {}
        for arm, mixture in _arms(batches, half, Source(NEW, new, new_share)).items():
            whole = load_for_training(half_trained, pick_device(job.device))
            if whole.config.vocab_size < words.vocab_size:
                raise InputError(
                    f"{half_trained} has a smaller vocabulary than {tokenizer}", "Give the model's own tokenizer"
                )
            model = job.lay_out(whole, {mixture.seq_len})
            rows = PretrainBatches([(mixture, steps)], rows_per_step=rows_per_step, rows_per_micro_batch=batches.micro)
            train(model, job.objective(), rows, annealing, work=work / arm, title=f"anneal, {arm}")
            save_model(model, made / arm, tokenizer=tokenizer, work=work / arm, dtype=training.save_dtype)
            losses[arm] = {
                which: row_losses(model, folder, seq_len=mixture.seq_len, pad=pad) for which, folder in sets.items()
            }
            new_epochs = mixture.epochs(steps * rows_per_step).get(NEW)
        result = {
            "model": job.name,
            "half_step": half,
            "steps": steps,
            "tokens": steps * rows_per_step * mixture.seq_len,
            "peak_lr": rate,
            "new_share": new_share,
            "new_epochs": new_epochs,
            "held_out": {which: _compared(losses["default"][which], losses["new"][which]) for which in sets},
        }
        if is_first():
            write_text_durably(made / "probe.json", json.dumps(result, indent=2) + "\n")
            made.rename(out)
            shutil.rmtree(work)
        meet()
        return result if is_first() else {}


def lines(result: dict[str, Any]) -> list[str]:
    """The result as text for the terminal."""
    out = [
        f"{result['model']}, half-trained ({result['half_step']:,} steps), annealed over {result['tokens']:,} tokens: "
        f"nats per token with {result['new_share']:.0%} of the new set and without"
    ]
    for which, found in result["held_out"].items():
        out.append(
            f"  {which:20} {found['default']:.4f} -> {found['new']:.4f}, {found['difference']:+.4f} "
            f"[{found['low']:+.4f}, {found['high']:+.4f}] over {found['rows']:,} rows: {found['verdict']}"
        )
    return out


def _training(job: PretrainJob) -> TrainConfig:
    if job.distill is not None:
        raise InputError(
            f"herd.models.{job.name}.distill: a probe trains without a teacher", "Probe a model that has no distill key"
        )
    return job.pretrain.train


def _check(pretrain: PretrainConfig, steps: int, half: int, new_share: float, out: Path, *, trains_half: bool) -> None:
    if out.exists():
        raise InputError(f"{out} exists", "Give a new folder")
    if not 0 < new_share < 1:
        raise InputError(f"the new set's share is {new_share}", "Give a number between 0 and 1, such as 0.3")
    if steps < 2:
        raise InputError(
            f"annealing takes 2 steps or more, not {steps}", "Give --steps, or set pretrain.train.anneal_steps"
        )
    if half < 1:
        raise InputError(f"pretrain.steps = {pretrain.steps} cannot be halved", "Set pretrain.steps to 2 or more")
    if trains_half and any(s.kind == "long-context" and s.first_step < half for s in timeline(pretrain)):
        raise InputError(
            f"the middle of the run, step {half:,}, is in a long-context stage", "Give a model with --half-trained"
        )


def _train_half(job: PretrainJob, batches: FirstSteps, *, seed: int, work: Path, tokenizer: Path) -> Path:
    """Train the first half of the recipe's run, or resume it; returns the model's folder."""
    folder = work / "half-trained"
    if from_first(folder.exists):
        return folder
    training, phases = _training(job), timeline(job.pretrain)
    rows = {phase.seq_len for phase in phases if phase.first_step < batches.steps}
    model = job.lay_out(job.new_model(seed, pick_device(job.device)), rows)
    first = training.model_copy(update={"horizon_steps": job.pretrain.steps, "average_last": 0.0})
    train(model, job.objective(), batches, first, work=work / "half", title=f"first half of {job.name}")
    writing = work / ".half-trained"
    if is_first():
        shutil.rmtree(writing, ignore_errors=True)
    meet()
    save_model(model, writing, tokenizer=tokenizer, work=work / "half")
    if is_first():
        writing.rename(folder)
    meet()
    return folder


def _arms(batches: PretrainBatches, half: int, new: Source) -> dict[str, Mixture]:
    """Both arms continue the default mix from where the half-trained model stopped."""
    mixture, first_row, _ = batches.find(half)
    default = [rows.source for rows in mixture.rows]
    scale = (1 - new.share) / sum(source.share for source in default)
    beside = [replace(source, share=source.share * scale) for source in default]
    return {"default": mixture.after(first_row, default), "new": mixture.after(first_row, [*beside, new])}


def _compared(default: NDArray[np.float64], new: NDArray[np.float64]) -> dict[str, Any]:
    found = paired_loss_difference(default, new)
    verdict = "better" if found.high < 0 else "worse" if found.low > 0 else "no difference seen"
    return {
        "default": float(default.mean()),
        "new": float(new.mean()),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "rows": len(default),
        "verdict": verdict,
    }
