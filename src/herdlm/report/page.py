"""A run's report as one self-contained HTML page: no scripts, fonts or images from elsewhere."""

from __future__ import annotations

from herdlm.report import charts, format
from herdlm.report.answer_sections import dialogs_section, pass_rate_section, quantization_section, verdict_badge
from herdlm.report.benchmarks_section import benchmarks_section
from herdlm.report.data import Check, Interval, Quantization, ReportData
from herdlm.report.frame import framed
from herdlm.report.markup import Child, Html, tag
from herdlm.report.origin_sections import lineage_section, notes_section, settings_section, times_section
from herdlm.report.scales import Scale, covering
from herdlm.report.training_sections import curation_section, forecast_section, pretraining_section


def render_page(data: ReportData) -> str:
    """Render the page. Equal data give equal bytes."""
    checks = {check.name: check for check in data.checks}
    sections = [
        *([("checks", "What this run shows", _claims_section(data))] if data.checks else []),
        *([("curation", "From pages to tokens", curation_section(data.curation))] if data.curation else []),
        *([("pre-training", "Pre-training", pretraining_section(data))] if data.pretraining else []),
    ]
    if data.forecast:
        says = checks["forecast-matches"].says
        sections.append(("forecast", "Forecast against truth", forecast_section(data.forecast, says)))
    if data.start:
        sections.append(("pass-rates", "Pass rates", pass_rate_section(data, data.start)))
    if data.quantization:
        fp8 = quantization_section(data, data.quantization, checks.get("fp8-keeps-pass-rate"))
        sections.append(("fp8", "FP8 against BF16", fp8))
    if data.benchmarks:
        sections.append(("benchmarks", "Standard tasks", benchmarks_section(data.benchmarks)))
    if data.dialogs:
        sections.append(("dialogs", "Sample dialogs", dialogs_section(data.dialogs)))
    sections += [
        ("times", "Seconds per stage", times_section(data.times)),
        ("lineage", "Lineage", lineage_section(data.lineage)),
        ("recipe", "Recipe", settings_section(data)),
        ("notes", "What these numbers do not say", notes_section(data)),
    ]
    return framed(
        f"Run {data.name}",
        _summary(data),
        sections,
        "Every number on this page was measured in this run and is also in report.json.",
        kind="herdlm report",
    )


def _summary(data: ReportData) -> Html:
    shown = sum(check.verdict == "shown" for check in data.checks)
    claims: tuple[Child, ...] = ()
    if data.checks:
        claims = (" ", tag("strong", f"{shown} of the run's {len(data.checks)} claims are shown"), ".")
    return tag("p", _made(data), *claims)


def _made(data: ReportData) -> str:
    """What the run made of what, in a sentence."""
    if data.curation is None or not data.pretraining:
        return f"The final model {data.lineage.final} was made from {data.lineage.line[0]}."
    flagship = next(run for run in data.pretraining if run.role == "flagship")
    models = len(data.pretraining)
    made = f"{models} models; the flagship has" if models > 1 else "a model of"
    pages = format.count(data.curation.documents_read)
    return f"{pages} web pages became {made} {format.count(flagship.parameters)} parameters."


def _claims_section(data: ReportData) -> list[Html]:
    q = data.quantization
    scale = covering(
        [0.0, *(v for c in data.checks if c.low is not None and c.high is not None for v in (c.low, c.high))]
    )
    return [
        tag(
            "p",
            "A claim is shown only if its whole 95% interval is on the claimed side. "
            "Differences are paired: both models answered the same held-out questions. Upright lines mark 0.",
        ),
        tag("ul", [tag("li", _card(check, scale), class_="card") for check in data.checks], class_="cards"),
        *(_fp8_figures(q) if q else ()),
    ]


def _fp8_figures(q: Quantization) -> list[Html]:
    return [
        tag(
            "p",
            f"FP8 besides: {format.percent(q.parameters_fp8 / q.parameters)} of the parameters are FP8; "
            f"KL to BF16 is {format.tiny(q.kl)} nats per token; both name the same most likely next token "
            f"{format.percent(q.top1_agreement, 2)} of the time.",
        )
    ]


def _card(check: Check, scale: Scale) -> list[Html]:
    strip = []
    if check.low is not None and check.high is not None:
        strip = [charts.interval_strip(Interval(check.value, check.low, check.high), scale, reference=0.0)]
    return [
        verdict_badge(check),
        tag("h3", check.claim),
        tag(
            "div",
            format.figure(check),
            tag("small", f"95% interval: {format.interval(check)}" if strip else format.interval(check)),
            class_="figure",
        ),
        *strip,
        tag("p", check.says),
        tag("p", f"Shown if {check.rule}.", class_="quiet"),
    ]
