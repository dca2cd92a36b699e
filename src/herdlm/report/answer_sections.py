"""The page's sections on answers: pass rates, rounds, tasks, FP8, sample dialogs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from herdlm.report import charts, format
from herdlm.report.data import Check, Dialog, Drift, Examination, Interval, Quantization, ReportData
from herdlm.report.markup import Child, Html, foreign, table, tag
from herdlm.report.scales import Scale, covering

VERDICTS = {"shown": "✓ shown", "not shown": "○ not shown", "contrary": "✗ not shown: the contrary"}


def verdict_badge(check: Check) -> Html:
    """A check's verdict as a sign and a word; its color adds nothing."""
    return tag("span", VERDICTS[check.verdict], class_=f"verdict {check.verdict.replace(' ', '-')}")


def checks_table(caption: str, checks: Sequence[Check]) -> Html:
    """Claims with measurements, verdict, figure and interval, in two columns to fit a narrow window."""
    return table(
        caption,
        ("Claim, and what was measured", "Verdict, figure and 95% interval"),
        (
            (
                [check.claim, tag("div", check.says, class_="says")],
                [
                    verdict_badge(check),
                    tag("div", format.figure(check), class_="nowrap"),
                    tag("div", format.interval(check), class_="quiet nowrap"),
                ],
            )
            for check in checks
        ),
        text_columns=(0, 1),
    )


def pass_rate_section(data: ReportData, start_stage: str) -> list[Html]:
    """Pass rates by round, by model and by task."""
    asked = data.examinations[0].asked
    start, end = data.examination(start_stage), data.examination(data.finished)
    control = data.examination(data.control) if data.control else None
    improved = [c for c in data.further_checks if c.name.startswith("round-") and c.verdict == "shown"]
    against = f"; the control passed {format.rate(control.pass_rate)}" if control else ""
    return [
        tag(
            "p",
            f"Every model answered the same {format.count(asked)} held-out questions, greedily. The flagship "
            f"passed {format.rate(start.pass_rate)} after the demonstrations and {format.rate(end.pass_rate)} after "
            f"round {len(data.rounds)}{against}. An improvement over the "
            f"round before is shown for {len(improved)} of {len(data.rounds)} rounds.{_drift_of_text(data, end)}",
        ),
        _rounds_chart(data, start, control),
        _rounds_table(data),
        _models_table(data.examinations, control),
        tag("h3", "Step by step"),
        tag("p", "Paired differences on the same questions. A step whose interval contains 0 is not shown to help."),
        checks_table("What each step did", data.further_checks),
        *(_ablation(data.ablation) if data.ablation else []),
        tag("h3", "Task by task"),
        _tasks_table([data.examination(stage) for stage in data.key_models]),
    ]


def _drift_of_text(data: ReportData, end: Examination) -> str:
    first = data.examinations[0].bits_per_byte
    if first is None or end.bits_per_byte is None:
        return ""
    return (
        f" Prediction of web text went from {format.loss(first)} bits per byte before post-training to "
        f"{format.loss(end.bits_per_byte)} after it."
    )


def quantization_section(data: ReportData, q: Quantization, check: Check | None) -> list[Html]:
    """The FP8 flagship against the BF16 flagship; ``check`` compares their answers, if they were asked."""
    answered: list[Html] = []
    rows: list[tuple[str, str, str]] = []
    changed = ""
    if check:
        before, after = data.examination(q.original), data.examination(q.changed)
        says = (
            f"{check.says} The paired difference is {format.figure(check)}, its 95% interval {format.interval(check)}."
        )
        answered = [tag("p", says)]
        rows = [
            ("Pass rate (95% interval)", format.rate(before.pass_rate), format.rate(after.pass_rate)),
            ("Bits per byte of held-out text", _bits(before), _bits(after)),
        ]
        changed = f" Of {format.count(after.asked)} answers {q.gained} became right and {q.lost} wrong."
    return [
        *answered,
        tag(
            "p",
            f"{format.percent(q.parameters_fp8 / q.parameters)} of the parameters are FP8; the weights on disk "
            f"went from {format.size(q.bytes_before)} to {format.size(q.bytes_after)}. Over {format.count(q.tokens)} "
            "held-out tokens the two models name the same most likely next token "
            f"{format.percent(q.top1_agreement, 2)} of the time, with a mean KL divergence of {format.tiny(q.kl)} nats "
            f"per token.{changed}",
        ),
        table(
            "FP8 against BF16",
            ("", "BF16", "FP8"),
            (
                *rows,
                ("Parameters in FP8", "0", f"{format.count(q.parameters_fp8)} of {format.count(q.parameters)}"),
                ("Share of parameters in FP8", "0%", format.percent(q.parameters_fp8 / q.parameters)),
                ("Weights on disk", format.size(q.bytes_before), format.size(q.bytes_after)),
                ("KL(BF16 || FP8), nats per token", "", format.tiny(q.kl)),
                ("KL, 99th percentile of tokens", "", format.tiny(q.kl_p99)),
                *_reward_row(q.reward),
                ("Same most likely next token", "", format.percent(q.top1_agreement, 2)),
            ),
        ),
        tag(
            "p",
            "These are the numbers of FP8, not its speed: on a CPU the products are taken in float32 over exact "
            "FP8 values. GPUs from the Hopper generation on multiply FP8 by FP8.",
            class_="quiet",
        ),
    ]


def _bits(examination: Examination) -> str:
    return "" if examination.bits_per_byte is None else f"{examination.bits_per_byte:.4f}"


def _reward_row(difference: Interval | None) -> list[tuple[str, str, str]]:
    if difference is None:
        return []
    value, low, high = (format.signed(v, 3) for v in (difference.value, difference.low, difference.high))
    return [("Difference in reward a prompt (95% interval)", "", f"{value} ({low} to {high})")]


def dialogs_section(dialogs: Iterable[Dialog]) -> list[Html]:
    """The same questions answered by several models, side by side."""
    return [
        tag("p", "The first held-out question of every task, chosen before any answer was seen."),
        *(_dialog(dialog) for dialog in dialogs),
    ]


def _dialog(dialog: Dialog) -> Html:
    answers = []
    for answer in dialog.answers:
        text: Child = foreign(answer.text) if answer.text.strip() else tag("em", "no answer")
        mark = tag("span", "✓ right" if answer.right else "✗ wrong", class_="mark")
        answers.append(
            tag(
                "div",
                tag("dt", answer.label),
                tag("dd", text, tag("br"), mark),
                class_="right" if answer.right else "wrong",
            )
        )
    return tag(
        "article",
        tag("h3", format.words(dialog.task)),
        tag("p", foreign(dialog.prompt)),
        tag("p", "Right answer: ", foreign(dialog.expected), class_="quiet"),
        tag("dl", answers, class_="answers"),
        class_="dialog",
    )


def _rounds_chart(data: ReportData, start: Examination, control: Examination | None) -> Html:
    sft = [(r.number - 0.08, data.examination(f"round-{r.number}-sft").pass_rate) for r in data.rounds]
    dpo = [(r.number + 0.08, data.examination(f"round-{r.number}-dpo").pass_rate) for r in data.rounds]

    def series(name: str, found: Sequence[tuple[float, Interval]], look: int, mark: str, line: bool) -> charts.Series:
        return charts.Series(
            name,
            [(x, 100 * i.value) for x, i in found],
            look,
            line=line,
            mark="open" if mark == "open" else "filled",
            bars=[(x, 100 * i.low, 100 * i.high) for x, i in found],
        )

    title, against, rules = "Pass rate per round, with 95% intervals", "", []
    if control:
        band = control.pass_rate
        title += "; the band is the control's interval"
        against = f" Control: {format.rate(band)}."
        rules = [charts.Rule("y", 100 * band.value, "control", (100 * band.low, 100 * band.high))]
    ticks = [(0.0, "demos"), *((float(r.number), str(r.number)) for r in data.rounds)]
    gated = all(r.gate for r in data.rounds)
    results, by = dpo, "DPO"
    if gated:
        by = "the gate"
        results = [(r.number + 0.16, data.examination(f"round-{r.number}-gate").pass_rate) for r in data.rounds]
    rounds = "; ".join(f"round {r.number}: {format.rate(i)}" for r, (_, i) in zip(data.rounds, results, strict=True))
    return charts.chart(
        [
            series("after SFT", sft, 2, "open", False),
            *([series("after DPO", dpo, 3, "open", False)] if gated else []),
            series(f"after {by}, the round's result", [(0.0, start.pass_rate), *results], 1, "filled", True),
        ],
        title=title,
        alt=f"Pass rate per round. Demonstrations: {format.rate(start.pass_rate)}; {rounds}.{against}",
        x="round",
        y="% of held-out questions right",
        x_scale=Scale(-0.35, len(data.rounds) + 0.35),
        x_ticks=ticks,
        rules=rules,
    )


def _rounds_table(data: ReportData) -> Html:
    rounds = data.rounds

    def passed(step: str) -> list[str]:
        return [format.rate(data.examination(f"round-{r.number}-{step}").pass_rate) for r in rounds]

    rows: list[tuple[str, Sequence[str | int]]] = [
        (
            "Samples right, of those with a verifier",
            ["none has one" if r.sampled_right is None else format.percent(r.sampled_right) for r in rounds],
        ),
        ("Preference pairs for the reward model", [r.pairs for r in rounds]),
        (
            "Reward model right on held-out pairs",
            [format.rate(r.reward_held_out) if r.reward_held_out else "no such pairs" for r in rounds],
        ),
        (
            "Reward model right on its training pairs",
            [format.rate(r.reward_train) if r.reward_train else "no such pairs" for r in rounds],
        ),
        ("Answers kept by rejection sampling", [r.kept for r in rounds]),
        ("SFT steps", [r.sft_steps for r in rounds]),
        ("DPO steps", [r.dpo_steps for r in rounds]),
        ("Pass rate after SFT (95% interval)", passed("sft")),
        ("Pass rate after DPO (95% interval)", passed("dpo")),
    ]
    if all(r.edits is not None for r in rounds):
        rows.insert(2, ("Answers corrected (edits)", [r.edits or 0 for r in rounds]))
    if all(r.cleaned is not None for r in rounds):
        rows.insert(-4, ("Of them left by quality control", [r.cleaned or 0 for r in rounds]))
    if all(r.gate for r in rounds):
        rows += [
            ("The gate", [r.gate.reason if r.gate else "" for r in rounds]),
            ("Pass rate of the model after the gate (95% interval)", passed("gate")),
        ]
    return table(
        "What went into each round and what came out",
        ("", *(f"Round {r.number}" for r in rounds)),
        ((name, *values) for name, values in rows),
    )


def _models_table(examinations: Sequence[Examination], control: Examination | None) -> Html:
    scale = covering([v for e in examinations for v in (e.pass_rate.low, e.pass_rate.high)], margin=0.03)
    return table(
        "Every examined model on the held-out questions" + ("; the upright line is the control" if control else ""),
        (
            *("Model", "Right", "Pass rate (95% interval)", "As a picture"),
            *([] if examinations[0].bits_per_byte is None else ["Bits per byte, web text"]),
        ),
        (
            (
                e.label,
                f"{format.count(e.right)} of {format.count(e.asked)}",
                format.rate(e.pass_rate),
                charts.interval_strip(e.pass_rate, scale, reference=control.pass_rate.value if control else None),
                *([] if e.bits_per_byte is None else [format.loss(e.bits_per_byte)]),
            )
            for e in examinations
        ),
        text_columns=(0, 3),
    )


def _ablation(drifts: Sequence[Drift]) -> list[Html]:
    series, changes = [], []
    for look, drift in enumerate(drifts, 1):
        for name, curve, number in (("chosen", drift.chosen, look), ("rejected", drift.rejected, look + 2)):
            points = list(zip(curve.steps, curve.values, strict=True))
            series.append(charts.Series(f"{name}, {drift.label}", points, number))
        chosen, rejected = format.signed(drift.chosen_late, 2), format.signed(drift.rejected_late, 2)
        changes.append(f"{drift.label} {chosen} for chosen and {rejected} for rejected answers")
    text = "; ".join(changes)
    return [
        tag("h3", "DPO at a high rate, with and without NLL"),
        tag(
            "p",
            "Where chosen answers lose probability together with rejected ones, DPO destroys what it should keep. "
            f"Change since the start of DPO, in nats per answer, mean over the last quarter of the steps: {text}.",
        ),
        charts.chart(
            series,
            title="Log-probability of answers against where DPO started, averaged over groups of steps",
            alt=f"Change of log-probability over the steps of DPO. Mean over the last quarter: {text}.",
            x="step",
            y="nats per answer",
        ),
    ]


def _tasks_table(models: Sequence[Examination]) -> Html:
    def cell(right: int, asked: int) -> Html:
        return tag("span", f"{100 * right / asked:.0f}%", class_="tint", style=f"--share:{100 * right / asked:.1f}%")

    rows: list[Iterable[Child]] = []
    for number, (task, _, asked) in enumerate(models[0].tasks):
        rows.append((format.words(task), asked, *(cell(*model.tasks[number][1:]) for model in models)))
    return table("Pass rate per task", ("Task", "Questions", *(model.label for model in models)), rows)
