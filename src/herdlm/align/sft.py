"""Fine-tunes a model on dialogs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from herdlm.align.config import SftConfig
from herdlm.align.dialog_loss import DialogLosses, dialog_losses, loss_change, mean_loss, perplexity
from herdlm.align.files import Data, read_data
from herdlm.align.job import FinetuneJob, Model, Run
from herdlm.align.result import estimate_json, save, shown, write_figures
from herdlm.align.teacher import learn_from
from herdlm.align.work import work_on
from herdlm.tokens.dialogs import DialogBatches, dialog_piece


def sft(job: FinetuneJob, config: SftConfig) -> dict[str, Any] | None:
    """Fine-tune a model on the dialogs in files, and publish it; see :func:`herdlm.align.work.work_on`.

    With held-out dialogs, the loss on them is measured before and after.
    """

    def act(run: Run) -> dict[str, Any]:
        return train_sft(run, config, read_data(run, "dialogs"))

    return work_on(job, "sft", config, act)


def train_sft(run: Run, config: SftConfig, data: Data) -> dict[str, Any]:
    """Fine-tune the run's model on dialogs and write it; returns counts. Every process calls this."""
    batches = DialogBatches(
        run.format,
        data.records,
        seq_len=config.seq_len,
        rows_per_step=config.rows_per_step,
        epochs=config.epochs,
        seed=run.seed_of("batches"),
        steps=run.job.steps or config.steps,
        rows_per_micro_batch=run.rows_at_once,
    )
    taught, objective = learn_from(
        run.job.teacher,
        batches,
        config,
        content=run.teacher,
        student=run.start.shape,
        tokenizer=run.format.tokenizer,
        work=run.work,
        device=run.device,
        say=run.say,
        quiet=run.job.quiet,
    )
    pieces = [dialog_piece(run.format, dialog) for dialog in data.held_out]

    def measure() -> DialogLosses:
        return dialog_losses(
            model,
            pieces,
            seq_len=config.seq_len,
            pad=run.format.pad,
            rows_at_once=run.rows_at_once,
            precision=run.precision,
        )

    model: Model = run.load()
    before = DialogLosses(**run.remember("before", lambda: asdict(measure()))) if pieces else None
    result = run.train(model, objective, taught, (lambda: {"loss": mean_loss(measure()).value}) if pieces else None)
    save(run, model)
    counts: dict[str, Any] = {
        "parameters": run.start.shape.parameters,
        "steps": result.steps,
        "warmup_steps": run.training(batches.steps).warmup_steps,
        "last_loss": round(result.last_loss, 6),
        "dialogs": len(data.records),
        **data.counts,
    }
    if before is None:
        return counts
    after = measure()
    was, now = mean_loss(before), mean_loss(after)
    change = loss_change(before, after)
    write_figures(run, {"loss": now, "perplexity": perplexity(now)})
    run.say(
        f"Held-out loss: {was.value:.3f} before, {shown(now)} nats per token after, change {shown(change, '+.3f')}; "
        f"perplexity {perplexity(was).value:.2f} before, {perplexity(now).value:.2f} after"
    )
    figures = {
        "dialogs": len(pieces),
        "targets": round(sum(after.weights)),
        "loss_before": estimate_json(was),
        "loss": estimate_json(now),
        "loss_change": estimate_json(change),
        "perplexity_before": estimate_json(perplexity(was)),
        "perplexity": estimate_json(perplexity(now)),
    }
    return counts | {"held_out": figures}
