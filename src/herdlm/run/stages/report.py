"""The last stage: gathers what the others measured, tests the run's claims, and writes the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import DamagedError
from herdlm.evaluate.intervals import Estimate, paired_difference, pass_rate
from herdlm.recipe import Recipe
from herdlm.report import gather, read
from herdlm.report.checks import above, beats_chance, below, expected_loss, lossless
from herdlm.report.data import Check, Examination, Interval, Quantization, ReportData
from herdlm.report.lineage import lineage
from herdlm.report.page import render_page
from herdlm.report.read import AnswerRecord, Records
from herdlm.run.examined import ABLATIONS, examined
from herdlm.run.post_training import base_of, finished_flagship, model_after
from herdlm.run.stage import Context

START, CONTROL, TAUGHT, SMALL_CONTROL = "seeds-sft", "control-sft", "small-taught", "small-control"
WITH_NLL, WITHOUT_NLL, BF16, FP8 = "dpo-with-nll", "dpo-without-nll", "flagship-bf16", "flagship-fp8"


def report_stage(context: Context) -> dict[str, Any]:
    """Write ``report.html`` and ``report.json``; the counts are the verdicts of the run's claims.

    Raises:
        DamagedError: a file or count that the report needs is missing or malformed.
    """
    data = gather_report(context.recipe, context.inputs)
    numbers = json.dumps(asdict(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_durably(context.out / "report.json", numbers + "\n")
    write_text_durably(context.out / "report.html", render_page(data))
    return {
        "checks": len(data.checks),
        "shown": sum(check.verdict == "shown" for check in data.checks),
        "verdicts": {check.name: check.verdict for check in (*data.checks, *data.further_checks)},
    }


def gather_report(recipe: Recipe, folders: Mapping[str, Path]) -> ReportData:
    """The report of a run whose finished stages are in ``folders``, by name."""
    records = read.read_stages(folders)
    labels = examined(recipe)
    if labels and not records[f"examine-{next(iter(labels))}"].counts(read.ExaminationCounts).questions:
        labels = {}  # no held-out prompt has a verifier
    answers = _Answers(records, labels)
    roles = _roles(recipe) if recipe.pretrain else {}
    pretraining = tuple(gather.pretraining(records[f"pretrain-{name}"], name, role) for name, role in roles.items())
    forecast = None
    if recipe.herd.ladder:
        flagship = recipe.herd.flagship
        measured = next(p.validation_loss for p in pretraining if p.model == flagship)
        forecast = gather.forecast(records["forecast"], records[f"pretrain-{flagship}"], measured)
    told = recipe.align if labels else None  # rounds are told by what their models answer to held-out prompts
    rounds = tuple(gather.round_of(records, r) for r in range(1, (told.rounds if told else 0) + 1))
    finished = finished_flagship(recipe)
    compared = [stage for stage in (START, CONTROL, finished, SMALL_CONTROL, TAUGHT) if stage in labels]
    key_models = [stage for stage in (START, CONTROL, finished, FP8, SMALL_CONTROL, TAUGHT) if stage in labels]
    ablation = ((WITH_NLL, "with NLL"), (WITHOUT_NLL, "without NLL")) if recipe.experiments.dpo_nll else ()
    return ReportData(
        name=recipe.name,
        seed=recipe.seed,
        code=tuple(sorted(records[BF16].manifest.code.items())),
        checks=(*_claims(answers, recipe), *([expected_loss(forecast)] if forecast else ())),
        further_checks=(
            *_steps(answers, recipe),
            *(beats_chance(r.number, r.reward_held_out) for r in rounds if r.reward_held_out),
        ),
        curation=gather.curation(records) if recipe.data else None,
        pretraining=pretraining,
        annealing_from=_annealing_from(recipe),
        forecast=forecast,
        examinations=tuple(answers.examination(stage) for stage in labels),
        start=START if told else None,
        finished=finished,
        rounds=rounds,
        control=CONTROL if recipe.experiments.control_sft else None,
        key_models=tuple(key_models),
        ablation=tuple(gather.drift(records[stage], label) for stage, label in ablation),
        quantization=_quantization(records, answers) if recipe.quantize and recipe.data else None,
        benchmarks=gather.benchmarks(records["benchmarks"]) if recipe.evaluate else None,
        dialogs=gather.dialogs({stage: answers.of(stage) for stage in compared}, labels),
        times=gather.times(records),
        lineage=lineage(records, FP8 if recipe.quantize else BF16),
        settings=gather.shareable_settings(recipe.model_dump(mode="json")),
    )


def _annealing_from(recipe: Recipe) -> int | None:
    """The step at which annealing begins; None without an anneal."""
    if recipe.pretrain is None or not recipe.pretrain.train.anneal_steps:
        return None
    return recipe.pretrain.steps - recipe.pretrain.train.anneal_steps


def _roles(recipe: Recipe) -> dict[str, str]:
    """The role of each model that the run trains; the flagship comes last."""
    flagship, small = recipe.herd.flagship, recipe.herd.small
    roles = dict.fromkeys(recipe.herd.ladder, "ladder")
    if small:
        roles[small] = "small, ladder" if small in roles else "small"
    return roles | {flagship: "flagship"}


class _Answers:
    """The held-out answers of all examined models, compared question by question."""

    def __init__(self, records: Records, labels: dict[str, str]) -> None:
        self.records, self.labels = records, labels
        self._read: dict[str, list[AnswerRecord]] = {}
        first: list[tuple[str, str, str]] | None = None
        for stage in labels:
            answers = records[f"examine-{stage}"].lines("answers.jsonl", AnswerRecord)
            asked = [(row.task, row.prompt, row.answer) for row in answers]
            if not asked or (first is not None and asked != first):
                what = "answers other questions than the other models" if asked else "has no answers"
                folder = records[f"examine-{stage}"].folder
                raise DamagedError(f"{folder / 'answers.jsonl'} {what}", f"Delete {folder} and run the recipe again")
            first = asked
            self._read[stage] = answers

    def of(self, stage: str) -> Sequence[AnswerRecord]:
        return self._read[stage]

    def right(self, stage: str) -> list[bool]:
        return [row.right for row in self._read[stage]]

    def examination(self, stage: str) -> Examination:
        rows, record = self._read[stage], self.records[f"examine-{stage}"]
        asked, right = Counter(row.task for row in rows), Counter(row.task for row in rows if row.right)
        validation = record.counts(read.ExaminationCounts).validation
        return Examination(
            stage=stage,
            label=self.labels[stage],
            asked=len(rows),
            right=right.total(),
            pass_rate=_interval(pass_rate(self.right(stage))),
            tasks=tuple((task, right[task], asked[task]) for task in sorted(asked)),
            bits_per_byte=validation.bits_per_byte if validation else None,
        )

    def rate(self, stage: str) -> tuple[str, float]:
        return self.labels[stage], sum(self.right(stage)) / len(self._read[stage])

    def difference(self, before: str, after: str) -> Interval:
        return _interval(paired_difference(self.right(before), self.right(after)))

    def above(self, name: str, claim: str, better: str, worse: str) -> Check:
        return above(name, claim, self.rate(better), self.rate(worse), self.difference(worse, better))


def _claims(answers: _Answers, recipe: Recipe) -> list[Check]:
    """Checks of the claims that the recipe's experiments and its FP8 model test."""
    experiments, checks = recipe.experiments, []
    edits = " and edits" if recipe.align and recipe.align.preferences else ""
    if experiments.control_sft:
        checks.append(
            answers.above(
                "rounds-over-control",
                f"The rounds lift the flagship above a control trained on demonstrations{edits} for as many steps",
                finished_flagship(recipe),
                CONTROL,
            )
        )
    if experiments.small_control:
        checks.append(
            answers.above(
                "flagship-teaches-small",
                "The flagship's answers teach the small model more than as many steps on demonstrations",
                TAUGHT,
                SMALL_CONTROL,
            )
        )
    if experiments.dpo_nll:
        checks += [
            answers.above(
                "dpo-with-nll-over-without",
                "At a high rate, DPO with its likelihood term (NLL) beats DPO without it",
                WITH_NLL,
                WITHOUT_NLL,
            ),
            below(
                "dpo-without-nll-collapses",
                "At that rate, DPO without NLL falls below the model it started from",
                answers.rate(WITHOUT_NLL),
                answers.rate("round-1-sft"),
                answers.difference("round-1-sft", WITHOUT_NLL),
            ),
        ]
    if FP8 in answers.labels:
        checks.append(
            lossless(
                "fp8-keeps-pass-rate",
                "The FP8 flagship's pass rate is within 2 points of the BF16 flagship's",
                answers.rate(FP8),
                answers.rate(BF16),
                answers.difference(BF16, FP8),
            )
        )
    return checks


def _steps(answers: _Answers, recipe: Recipe) -> list[Check]:
    """Checks of what each step of post-training achieved, also where no effect is claimed."""
    if recipe.align is None or not answers.labels:
        return []
    last, rounds = finished_flagship(recipe), range(1, recipe.align.rounds + 1)
    checks = [
        answers.above(
            "demonstrations-over-pretrained",
            "Demonstrations teach the pre-trained flagship to answer",
            START,
            base_of(recipe),
        ),
        answers.above("rounds-over-demonstrations", "The rounds improve on the demonstrations alone", last, START),
    ]
    after = "gate" if recipe.align.gate else "dpo"
    for number in rounds:
        before = START if number == 1 else f"round-{number - 1}-{after}"
        name = "the demonstrations" if number == 1 else f"round {number - 1}"
        claim = f"Round {number} improves on {name}"
        checks.append(answers.above(f"round-{number}-over-before", claim, f"round-{number}-{after}", before))
    checks += [
        answers.above(f"dpo-over-sft-{r}", f"In round {r}, DPO improves on SFT", f"round-{r}-dpo", f"round-{r}-sft")
        for r in rounds
    ]
    checks += _ablations(answers, recipe)
    if recipe.experiments.dpo_nll:
        checks.append(
            answers.above(
                "dpo-with-nll-over-start",
                "At a high rate, DPO with NLL improves on the model it started from",
                WITH_NLL,
                "round-1-sft",
            )
        )
    return checks


def _ablations(answers: _Answers, recipe: Recipe) -> list[Check]:
    """What each part of round 1 is worth: the round against the same round without it."""
    assert recipe.align
    whole = "round-1-dpo"
    without = {"dpo": "round-1-sft"}
    checks = []
    for part in recipe.experiments.ablations:
        if part == "averaging":  # the gate's choice against what was trained
            better, worse = model_after(recipe.align, 1), whole
        else:
            better, worse = whole, without.get(part, f"without-{part}-dpo")
        claim = f"Round 1 gains by {ABLATIONS[part]}"
        checks.append(answers.above(f"with-{part}", claim, better, worse))
    if recipe.experiments.grpo:
        checks.append(
            answers.above(
                "grpo-over-round",
                "In place of the last round, GRPO improves as much or more",
                "grpo",
                model_after(recipe.align, recipe.align.rounds),
            )
        )
    return checks


def _quantization(records: Records, answers: _Answers) -> Quantization:
    counts = records[FP8].counts(read.QuantizationCounts)
    comparison = records["compare-fp8"].json("comparison.json", read.ComparisonRecord)
    divergence = comparison.text
    reward = comparison.answers.reward.difference if comparison.answers else None
    pairs = list(zip(answers.right(BF16), answers.right(FP8), strict=True)) if FP8 in answers.labels else []
    return Quantization(
        original=BF16,
        changed=FP8,
        parameters=counts.parameters,
        parameters_fp8=counts.parameters_fp8,
        bytes_before=counts.bytes_before,
        bytes_after=counts.bytes_after,
        kl=divergence.kl,
        kl_p99=divergence.kl_p99,
        top1_agreement=divergence.top1_agreement,
        tokens=divergence.tokens,
        reward=Interval(reward.value, reward.low, reward.high) if reward else None,
        gained=sum(after and not before for before, after in pairs),
        lost=sum(before and not after for before, after in pairs),
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(estimate.value, estimate.low, estimate.high)
