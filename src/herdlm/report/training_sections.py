"""The page's sections on data and training: the funnel, loss curves, the forecast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from herdlm.report import charts, format
from herdlm.report.checks import axis_label
from herdlm.report.data import Axis, Curation, Curve, Forecast, ReportData
from herdlm.report.markup import Child, Html, table, tag
from herdlm.report.scales import covering


def curation_section(curation: Curation) -> list[Html]:
    """Pages read, drops by step and reason, languages, and token sets."""
    worst = max(curation.steps, key=lambda step: step.documents_dropped)
    says = (
        f"{format.count(curation.documents_read)} pages came in, {format.count(curation.documents_kept)} clean "
        f"documents are left ({format.percent(curation.documents_kept / max(curation.documents_read, 1))}, "
        f"{format.size(curation.bytes_kept)} of text). "
    )
    says += (
        f"Most were dropped by the step “{format.words(worst.name)}”: {format.count(worst.documents_dropped)}."
        if worst.documents_dropped
        else "No step dropped any."
    )
    steps = table(
        "Documents through each step of curation",
        ("Step", "In", "Dropped", "Left", "Left, as a bar", "Bytes left"),
        (
            (
                format.words(s.name),
                s.documents_in,
                s.documents_dropped,
                s.documents_out,
                charts.share_bar(s.documents_out / max(curation.documents_read, 1)),
                format.size(s.bytes_out),
            )
            for s in curation.steps
        ),
        text_columns=(0, 4),
    )
    reasons = table(
        "Why documents were dropped",
        ("Reason", "Step", "Documents", "Bytes"),
        (
            (format.words(reason), format.words(s.name), documents, format.size(size))
            for s in curation.steps
            for reason, documents, size in s.reasons
        ),
        text_columns=(0, 1),
    )
    whole = max(sum(language.bytes for language in curation.languages), 1)
    languages = table(
        "Languages of the documents kept",
        ("Language", "Documents", "Words", "Text", "Share of text", "As a bar"),
        (
            (
                tag("code", language.code),
                language.documents,
                language.words,
                format.size(language.bytes),
                format.percent(language.bytes / whole),
                charts.share_bar(language.bytes / whole),
            )
            for language in curation.languages
        ),
        text_columns=(0, 5),
    )
    tokens = table(
        f"Token sets, from a tokenizer of {format.count(curation.vocab_size)} entries",
        ("Set", "Documents", "Tokens", "Tokens with loss", "Bytes per token"),
        (
            (tag("code", t.name), t.documents, t.tokens, t.target_tokens, f"{t.bytes_per_token:.2f}")
            for t in curation.tokens
        ),
    )
    return [
        tag("p", says),
        tag("p", "Bytes are of raw pages as read in the first step, of extracted text from there on.", class_="quiet"),
        steps,
        tag("h3", "Reasons"),
        reasons,
        tag("h3", "Languages"),
        languages,
        tag("h3", "Tokens"),
        tokens,
    ]


def pretraining_section(data: ReportData) -> list[Html]:
    """Loss, learning rate and gradient norm of every model, and its loss on held-out text."""
    runs = data.pretraining
    best = min(runs, key=lambda run: run.bits_per_byte)
    # The flagship, last of the herd, gets the first look; ladder models share the others.
    looks = {run.model: number % charts.LOOKS + 1 for number, run in enumerate(reversed(runs))}
    rules = []
    if data.annealing_from:
        rules.append(charts.Rule("x", data.annealing_from, "annealing"))

    def drawn(curves: Sequence[Curve], title: str, y: str) -> Html:
        series = [
            charts.Series(run.model, list(zip(curve.steps, curve.values, strict=True)), looks[run.model])
            for run, curve in zip(runs, curves, strict=True)
        ]
        ends = "; ".join(f"{run.model} ends at {curve.values[-1]:.3g}" for run, curve in zip(runs, curves, strict=True))
        return charts.chart(
            series,
            title=title,
            alt=f"{title}. {ends}.",
            x="step",
            y=y,
            rules=rules,
            x_scale=covering([0, *(run.steps for run in runs)], margin=0.0),
        )

    return [
        tag(
            "p",
            f"Every model of the herd saw the same rows. On held-out web text the {best.model} model predicts "
            f"best: {format.loss(best.bits_per_byte)} bits per byte.",
        ),
        drawn([run.loss for run in runs], "Training loss, averaged over groups of steps", "nats per token"),
        tag(
            "div",
            drawn([run.learning_rate for run in runs], "Learning rate", "learning rate"),
            drawn([run.gradient_norm for run in runs], "Gradient norm before clipping", "norm"),
            class_="pair",
        ),
        table(
            "Models of the herd after pre-training",
            ("Model", "Role", "Parameters", "Without embeddings", "Trained tokens", "Validation loss", "Bits per byte"),
            (
                (
                    tag("code", run.model),
                    run.role,
                    run.parameters,
                    run.body_parameters,
                    run.trained_tokens,
                    format.loss(run.validation_loss),
                    format.loss(run.bits_per_byte),
                )
                for run in runs
            ),
            text_columns=(0, 1),
        ),
        tag(
            "p",
            "Validation loss is in nats per token of held-out web text, after annealing and checkpoint averaging; "
            "training loss is over the whole mix, so the two are not the same scale.",
            class_="quiet",
        ),
    ]


def forecast_section(forecast: Forecast, says: str) -> list[Html]:
    """The ladder, the line through it, and forecast and measured loss, on both axes."""
    rows: list[Iterable[Child]] = []
    for axis in forecast.axes:
        deviation = axis.forecast / forecast.measured - 1
        rows.append(
            (
                axis_label(axis.name),
                "yes" if axis.name == forecast.chosen else "no",
                [f"{axis.factor:.3f} · size", tag("sup", format.signed(axis.exponent, 4))],
                format.loss(axis.forecast),
                format.loss(forecast.measured),
                f"{format.signed(100 * deviation, 2)}%",
            )
        )
    low, high = (pick(axis.forecast for axis in forecast.axes) for pick in (min, max))
    band = f"The two axes span a band of {format.loss(low)} to {format.loss(high)} nats per token"
    inside = low <= forecast.measured <= high
    return [
        tag("p", says),
        tag("p", f"{band}; the measured loss lies {'inside' if inside else 'outside'} it."),
        tag(
            "div",
            [_axis_chart(axis, forecast.measured, axis.name == forecast.chosen) for axis in forecast.axes],
            class_="pair",
        ),
        table(
            "The forecast on both axes (nats per token of held-out web text)",
            ("Axis", "Fixed beforehand", "Line through the ladder", "Forecast", "Measured", "Forecast off by"),
            rows,
            text_columns=(0, 1, 2),
        ),
    ]


def _axis_chart(axis: Axis, measured: float, chosen: bool) -> Html:
    sizes = [size for _, size, _ in axis.ladder]
    x_scale = covering([*sizes, axis.size], log=True)
    low, high = min(*sizes, axis.size), max(*sizes, axis.size)
    line = [(x, axis.factor * x**axis.exponent) for x in (low * (high / low) ** (n / 24) for n in range(25))]
    ladder = [(size, loss) for _, size, loss in axis.ladder]
    losses = [*(y for _, y in line), *(y for _, y in ladder), axis.forecast, measured]
    label = axis_label(axis.name)
    points = "; ".join(f"{model}: {format.count(size)}, {format.loss(loss)}" for model, size, loss in axis.ladder)
    return charts.chart(
        [
            charts.Series("ladder", ladder, 1, line=False, mark="filled"),
            charts.Series("line through the ladder", line, 5),
            charts.Series("forecast", [(axis.size, axis.forecast)], 2, line=False, mark="open"),
            charts.Series("measured", [(axis.size, measured)], 3, line=False, mark="square"),
        ],
        title=f"{'Fixed beforehand' if chosen else 'For comparison'}: {label}",
        alt=f"Validation loss against {label}, both logarithmic. Ladder {points}. At {format.count(axis.size)} the "
        f"line forecasts {format.loss(axis.forecast)}; measured {format.loss(measured)}.",
        x=label,
        y="nats per token",
        x_scale=x_scale,
        y_scale=covering(losses, log=True, margin=0.1),
    )
