"""Reads the parts of the report that come from a run's stages without a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from herdlm.base.errors import DamagedError
from herdlm.report import read
from herdlm.report.data import (
    Answer,
    Axis,
    BenchmarkRow,
    Benchmarks,
    Curation,
    Curve,
    Dialog,
    Drift,
    Forecast,
    FunnelStep,
    GateResult,
    Interval,
    Language,
    Pretraining,
    Round,
    StageTime,
    Tokens,
)
from herdlm.report.lineage import source_name
from herdlm.report.read import AnswerRecord, Records, StageRecord

CURVE_POINTS, DRIFT_POINTS = 120, 24  # DPO batches are small and noisy: fewer points, longer means


def curation(records: Records) -> Curation:
    """The funnel of curation, and the token sets made from its documents."""
    funnel = records["curate"].json("funnel.json", read.FunnelRecord)
    steps = [
        FunnelStep(
            step.step,
            step.documents_in,
            step.documents_dropped,
            step.documents_out,
            step.bytes_out,
            tuple((reason, of.documents, of.bytes) for reason, of in step.dropped.items()),
        )
        for step in funnel.steps
    ]
    languages = [Language(code, of.documents, of.bytes, of.words) for code, of in funnel.languages.items()]
    languages.sort(key=lambda language: (-language.bytes, language.code))
    tokens = [
        Tokens(name, of.documents, of.tokens, of.target_tokens, of.bytes_per_token)
        for name, of in records["tokens"].counts(read.TokensCounts).root.items()
    ]
    return Curation(
        files=funnel.input.files,
        file_bytes=funnel.input.file_bytes,
        documents_read=funnel.input.documents,
        documents_kept=funnel.output.documents,
        bytes_kept=funnel.output.bytes,
        steps=tuple(steps),
        languages=tuple(languages),
        vocab_size=records["tokenizer"].counts(read.TokenizerCounts).vocab_size,
        tokens=tuple(tokens),
    )


def curves(record: StageRecord, *fields: str, points: int = CURVE_POINTS) -> list[Curve]:
    """Logged numbers of a training run as curves of at most ``points`` points, each a mean over steps."""
    rows = record.events("step", "step", *fields)
    groups = min(points, len(rows))
    ends = [round((group + 1) * len(rows) / groups) for group in range(groups)]
    parts = [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    steps = tuple(int(part[-1][0]) for part in parts)
    return [
        Curve(steps, tuple(sum(row[column] for row in part) / len(part) for part in parts))
        for column in range(1, len(fields) + 1)
    ]


def pretraining(record: StageRecord, model: str, role: str) -> Pretraining:
    """One model's pre-training: its size, its loss curve, its validation loss."""
    training = record.json("training.json", read.PretrainingRecord)
    loss, rate, norm = curves(record, "loss", "lr", "grad_norm")
    return Pretraining(
        model=model,
        role=role,
        parameters=training.parameters,
        body_parameters=training.body_parameters,
        trained_tokens=training.trained_tokens,
        steps=training.steps,
        validation_loss=training.validation_nats_per_token,
        bits_per_byte=training.validation_bits_per_byte,
        loss=loss,
        learning_rate=rate,
        gradient_norm=norm,
    )


def forecast(record: StageRecord, flagship: StageRecord, measured: float) -> Forecast:
    """The forecast as it was recorded, with the measured loss."""
    recorded = record.json("forecast.json", read.ForecastRecord)
    axes = []
    for name, law, size in (
        ("body_parameters", recorded.body_parameters, recorded.flagship.body_parameters),
        ("parameters", recorded.parameters, recorded.flagship.parameters),
    ):
        ladder = tuple((model, float(getattr(of, name)), of.loss) for model, of in recorded.ladder.items())
        axes.append(Axis(name, law.factor, law.exponent, ladder, size, law.forecast))
    if recorded.axis not in [axis.name for axis in axes]:
        raise DamagedError(
            f"{record.folder / 'forecast.json'} names the axis {recorded.axis}, of which it holds no forecast",
            f"Delete {record.folder} and run the recipe again",
        )
    came_before = flagship.manifest.after.get("forecast") == record.manifest.content
    return Forecast(tuple(axes), recorded.axis, measured, came_before)


def round_of(records: Records, number: int) -> Round:
    """What went into and came out of a round."""
    annotated = f"round-{number}-preferences"
    paired = annotated if annotated in records else f"round-{number}-verdicts"
    preferences = records[paired].counts(read.PairsCounts)
    selection = records[f"round-{number}-select"].counts(read.SelectionCounts)
    cleaning, gate = (records.get(f"round-{number}-{name}") for name in ("quality", "gate"))
    reward = records[f"round-{number}-reward"].counts(read.RewardCounts)
    sft, dpo = (
        records[f"round-{number}-{step}"].json("training.json", read.TuningRecord).steps for step in ("sft", "dpo")
    )
    accuracy = {}
    for name, measured, pairs in (
        ("train", reward.train_accuracy, reward.pairs),
        ("held_out", reward.held_out_accuracy, reward.held_out_pairs),
    ):
        if pairs and measured is None:
            raise DamagedError(
                f"{records[f'round-{number}-reward'].folder} has {pairs} {name} pairs, but no {name}_accuracy",
                "Delete that folder and run the recipe again",
            )
        accuracy[name] = Interval(*measured) if measured else None
    return Round(
        number=number,
        sampled_right=preferences.right_share,
        pairs=preferences.pairs,
        edits=preferences.edits,
        kept=selection.kept,
        cleaned=cleaning.counts(read.SelectionCounts).kept if cleaning else None,
        reward_held_out=accuracy["held_out"],
        reward_train=accuracy["train"],
        held_out_pairs=reward.held_out_pairs,
        sft_steps=sft,
        dpo_steps=dpo,
        gate=_gate(gate.counts(read.GateCounts)) if gate else None,
    )


def _gate(found: read.GateCounts) -> GateResult:
    return GateResult(found.promoted, found.reason, tuple(found.scores.items()))


def drift(record: StageRecord, label: str) -> Drift:
    """How DPO moved the log-probabilities of chosen and rejected answers."""
    fields = ("chosen_drift", "rejected_drift")
    chosen, rejected = curves(record, *fields, points=DRIFT_POINTS)
    rows = record.events("step", *fields)
    late = rows[-max(len(rows) // 4, 1) :]
    means = [sum(row[column] for row in late) / len(late) for column in range(len(fields))]
    return Drift(label, chosen, rejected, *means)


def benchmarks(record: StageRecord) -> Benchmarks:
    """The results of standard tasks."""
    results = record.json("results.json", read.ResultsRecord)
    names = dict.fromkeys(
        (task, metric)
        for model in results.models
        for task, figures in model.tasks.items()
        for metric, value in figures.root.items()
        if isinstance(value, read.EstimateRecord)
    )
    rows = []
    for task, metric in names:
        each = [model.tasks[task].root if task in model.tasks else {} for model in results.models]
        found = tuple(_interval(figures.get(metric)) for figures in each)
        items = max(n for figures in each if isinstance(n := figures.get("n"), int))
        is_share = metric not in results.ratios and all(of is None or of.value <= 1 for of in found)
        rows.append(BenchmarkRow(task, metric, items, is_share, found))
    return Benchmarks(
        tuple(model.model for model in results.models),
        tuple(rows),
        tuple((each.shown, each.sentence) for each in results.comparisons),
    )


def _interval(found: Any) -> Interval | None:
    if not isinstance(found, read.EstimateRecord) or found.low is None or found.high is None or found.value is None:
        return None
    return Interval(found.value, found.low, found.high)


def dialogs(answers: Mapping[str, Sequence[AnswerRecord]], labels: Mapping[str, str]) -> tuple[Dialog, ...]:
    """The first held-out question of every task as several models answered it: chosen by position alone."""
    first: dict[str, int] = {}
    questions = next(iter(answers.values()), ())
    for number, question in enumerate(questions):
        first.setdefault(question.task, number)
    return tuple(
        Dialog(
            questions[number].task,
            questions[number].prompt,
            questions[number].answer,
            tuple(Answer(labels[stage], of[number].given, of[number].right) for stage, of in answers.items()),
        )
        for number in first.values()
    )


def times(records: Records) -> tuple[StageTime, ...]:
    """Seconds of every stage, in the order of the plan."""
    return tuple(StageTime(name, phase_of(name), record.manifest.seconds) for name, record in records.items())


def phase_of(stage: str) -> str:
    """The part of the run that a stage belongs to."""
    if stage.startswith("round-"):
        return f"round {stage.split('-')[1]}"
    phases = {
        "pages to tokens": ("curate", "tokenizer", "bank", "tokens"),
        "pre-training and forecast": ("pretrain-", "forecast"),
        "demonstrations": ("files", "synth-", "seeds-"),
        "controls": ("control-", "dpo-with", "without-", "repeat-", "grpo"),
        "small model's lesson": ("lesson-", "small-"),
        "export and FP8": ("flagship-",),
        "evaluation": ("examine-", "compare-", "benchmarks"),
    }
    return next((phase for phase, prefixes in phases.items() if stage.startswith(prefixes)), "other")


def shareable_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A recipe with names of sources and folders instead of paths, as the page may be shared."""
    data, herd = settings["data"], settings["herd"]
    if data is not None:
        settings = settings | {"data": data | {"sources": [source_name(path) for path in data["sources"]]}}
    models = {
        name: model | ({"from": source_name(model["from"])} if "from" in model else {})
        for name, model in herd["models"].items()
    }
    if (evaluate := settings["evaluate"]) is not None:
        named = {key: [source_name(path) for path in evaluate[key]] for key in ("tasks", "data")}
        settings = settings | {"evaluate": evaluate | named}
    if settings["align"] is not None:
        settings = settings | {"align": _without_folders(settings["align"])}
    return settings | {"herd": herd | {"models": models}}


def _without_folders(value: Any) -> Any:
    """JSON values in which the name of a file or folder stands for its absolute path."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return source_name(value) if isinstance(value, str) and value.startswith("/") else value
