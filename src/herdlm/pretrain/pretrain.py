"""Pre-trains one model from token shards and writes it as a Hugging Face folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.base.standalone import input_folder, standalone
from herdlm.evaluate.needle import Retrieval, make_needles, predict_with, retrieval
from herdlm.evaluate.perplexity import TextLoss, text_loss
from herdlm.generate.load import pick_device
from herdlm.parallel.processes import from_first, is_first, led_by_first, process_group
from herdlm.pretrain.batches import open_batches
from herdlm.pretrain.config import timeline, tokens_in
from herdlm.pretrain.distill import Distillation, open_distillation
from herdlm.pretrain.job import PretrainJob
from herdlm.pretrain.long_context import StageCallbacks, train_in_stages
from herdlm.pretrain.mix import plan_mix, source_tokens
from herdlm.tokens.mixture import FirstSteps
from herdlm.tokens.shards import Shard
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.loop import TrainResult, train
from herdlm.train.milestones import keep_milestones
from herdlm.train.save import save_model
from herdlm.train.work import objective_identity


def pretrain(
    job: PretrainJob, *, tokens: Path, tokenizer: Path, out: Path, teacher: Path | None = None
) -> dict[str, Any]:
    """Pre-train one model and publish it as the folder ``out``; returns the counts of its manifest.

    A job with a ``start`` continues the pre-training of that folder's model; otherwise the weights are new. On one
    process the weights are the same as in a whole run of the recipe. Under torchrun the model is trained in the
    job's layout, and the first process returns the counts. An interrupted training resumes from its last checkpoint,
    on any number of processes, even if the gates of its long-context stages have changed.

    Args:
        teacher: folder of the model to distill from; required if ``job.distill`` is set.

    Raises:
        InputError: ``out`` exists, a folder is missing or does not belong to the others, or ``teacher`` and
            ``job.distill`` disagree.
    """
    torch.set_num_threads(job.threads)
    settings = {
        "model": job.model.model_dump(mode="json"),
        "pretrain": job.pretrain.model_dump(mode="json", exclude={"gate"}),
        "gate": job.pretrain.gate.model_dump(mode="json"),
    }
    if code := job.code():
        settings["code"] = code
    folders = {"tokens": tokens, "tokenizer": tokenizer} | ({} if job.start is None else {"start": job.start})
    distill = job.distill
    if (distill is None) != (teacher is None):
        key = f"herd.models.{job.name}.distill"
        raise InputError(
            f"{key} needs a teacher's folder" if distill else f"a teacher is given, but the recipe has no {key}",
            "Give --teacher" if distill else f"Set {key}.weight=0.5, for example, or drop --teacher",
        )
    if distill is not None and teacher is not None:
        settings["distill"] = distill.model_dump(mode="json", exclude={"teacher"})
        folders["teacher"] = teacher
    seed = derive_seed(job.seed, "pretrain")
    device = pick_device(job.device).type
    counts: dict[str, Any] = {}
    with process_group(device):
        inputs = from_first(lambda: {role: input_folder(folder) for role, folder in folders.items()})
        published = standalone(
            out,
            kind="model",
            name=f"pretrain-{job.name}",
            settings=settings,
            inputs=inputs,
            seed=seed,
            counts=counts,
            free={"gate"},
        )
        with led_by_first(published) as (made, work):
            done = pretrain_into(
                job,
                tokens=tokens,
                tokenizer=tokenizer,
                out=made,
                work=work,
                device=device,
                seed=seed,
                title=job.name,
                teacher=teacher,
            )
            counts.update(done)
    return counts


def _check_shards(job: PretrainJob, tokens: Path, tokenizer: Tokenizer) -> None:
    """Check before the run starts that every shard it will read opens and was made with this tokenizer."""
    read = {part.source for phase in timeline(job.pretrain) for part in phase.mix}
    for name in sorted({*read, "web-validation"}):
        if Shard(tokens / name).index.tokenizer != tokenizer.content():
            raise InputError(
                f"{tokens / name} was made with another tokenizer", "Give the tokenizer that the shards were made with"
            )
    start, words = job.start, "tokenizer.json"
    if start is not None and (start / words).is_file() and Tokenizer.load(start).content() != tokenizer.content():
        raise InputError(f"the model {start} has another tokenizer", "Tokenize the text with the model's own")
    if job.own_tokenizer and tokenizer.vocab_size != job.model.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} entries, but tokenizer.vocab_size is {job.model.vocab_size}",
            "Give the tokenizer that was trained with this recipe",
        )
    if tokenizer.vocab_size > job.model.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size:,} entries, but the model has {job.model.vocab_size:,}",
            "Give the tokenizer that belongs to the model",
        )


def pretrain_into(
    job: PretrainJob,
    *,
    tokens: Path,
    tokenizer: Path,
    out: Path,
    work: Path,
    device: str,
    seed: int,
    title: str,
    teacher: Path | None,
) -> dict[str, Any]:
    """Train a model from its first weights through all phases, measure it on held-out text, and write it to ``out``.

    Every process calls this; the first one returns the counts.

    Args:
        tokens, tokenizer: folders of the token shards and of the tokenizer.
        work: keeps checkpoints, and with them lets an interrupted call resume.
        title: name of the training in progress displays.
    """
    config = job.pretrain
    loaded = Tokenizer.load(tokenizer)
    pad = loaded.pad
    _check_shards(job, tokens, loaded)
    batches = open_batches(job.batching(), tokens, seed=seed, pad=pad)
    distillation: Distillation | None = None
    if teacher is not None:
        distillation = open_distillation(
            job,
            teacher=teacher,
            content=input_folder(teacher).content,
            batches=batches,
            tokenizer=loaded,
            work=work,
            device=device,
            title=title,
        )
    trained = job.lay_out(job.new_model(seed, device), config.seq_lens)
    training, objective = config.train, job.objective()
    results: list[TrainResult] = []

    def validate() -> dict[str, float]:
        measured = held_out_loss(config.seq_len)
        return {"loss": measured.nats_per_token, "bits_per_byte": measured.bits_per_byte}

    def train_until(step: int) -> None:
        last = step == config.steps
        unfinished = training.model_copy(update={"horizon_steps": config.steps, "average_last": 0.0})
        schedule = training if last else unfinished
        rows = batches if last else FirstSteps(batches, step)
        # The objective changes where distillation begins, and the run stays the same.
        known_as = objective_identity(objective if distillation is None else distillation.objective)
        resume = partial(train, trained, work=work, title=title, track=job.track, validate=validate, identity=known_as)
        if distillation is None or step <= distillation.first_step:
            results.append(resume(objective, rows, schedule))
            return
        if distillation.first_step:  # train on text alone up to that step, unless the last checkpoint is past it
            resume(objective, FirstSteps(batches, distillation.first_step), unfinished)
        results.append(resume(distillation.objective, distillation.batches(rows), schedule))

    def find_needles(length: int) -> Retrieval:
        needles = make_needles(
            Shard(tokens / "web-validation"),
            loaded,
            length=length,
            depths=config.gate.needle_depths,
            per_depth=config.gate.needles_per_depth,
            seed=derive_seed(seed, "needles"),
        )
        return retrieval(predict_with(trained), needles)

    def held_out_loss(seq_len: int) -> TextLoss:
        return text_loss(trained, tokens / "web-validation", seq_len=seq_len, pad=pad)

    passed = train_in_stages(
        config,
        StageCallbacks(
            train_until=train_until,
            set_rope_scaling=trained.set_rope_scaling,
            find_needles=find_needles,
            short_loss=lambda seq_len: held_out_loss(seq_len).nats_per_token,
            save=lambda folder: save_model(trained, folder, tokenizer=tokenizer, work=work),
        ),
        work,
    )
    save_model(trained, out, tokenizer=tokenizer, work=work, dtype=training.save_dtype)
    keep_milestones(work, out, training)
    loss = held_out_loss(config.seq_len)
    if not is_first():
        return {}
    epochs: dict[str, float] = {}
    for (rows, steps), rows_per_step in zip(batches.phases, batches.rows_per_step, strict=True):
        for source, read in rows.epochs(steps * rows_per_step).items():
            epochs[source] = round(epochs.get(source, 0.0) + read, 3)
    counts = {
        "parameters": job.model.parameters,
        "body_parameters": job.model.body_parameters,
        **{f"validation_{key}": round(value, 6) for key, value in asdict(loss).items()},
        "steps": results[-1].steps,
        "trained_tokens": tokens_in(config),
        "averaged_checkpoints": results[-1].averaged,
        "epochs": epochs,
        "gates": [asdict(result) for result in passed],
    }
    if config.max_epochs:
        counts["mix_plan"] = plan_mix(config, source_tokens(tokens, config)).as_json()
    (out / "training.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return counts
