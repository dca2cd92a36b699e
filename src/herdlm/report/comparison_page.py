"""A comparison of two models as one HTML page: weights, distributions, rewards, answers, worst prompts, memory."""

from __future__ import annotations

from typing import Any

from herdlm.report import charts, format
from herdlm.report.data import Interval
from herdlm.report.frame import Section, framed
from herdlm.report.markup import Child, Html, foreign, table, tag
from herdlm.report.scales import Scale, covering

PAGE = "comparison.html"
FRAME = 1 / 30  # margin at both ends of a histogram, as a share of its width
MORE_STYLE = """
.fits { color: var(--good); font-weight: 600; } .fits-not { color: var(--bad); font-weight: 600; }
.worst { border-left: 3px double var(--bad); padding: .1rem 0 .1rem .8rem; margin: 1rem 0; min-width: 0; }
.worst p { margin: 0 0 .3rem; }
"""


def render_comparison_page(comparison: dict[str, Any]) -> str:
    """Render the content of comparison.json. Equal data give equal bytes; text of models is escaped."""
    text, answers = comparison["text"], comparison["answers"]
    names = {side: comparison[side]["name"] for side in ("original", "changed")}
    sections: list[Section] = [("weights", "Weights", [_weights(comparison)])]
    if text:
        sections.append(("text", "Next-token distributions on text", _text(text)))
    if comparison["benchmarks"]:
        sections.append(("benchmarks", "Benchmarks", _benchmarks(comparison["benchmarks"])))
    if answers:
        if answers["reward"]:
            sections.append(("reward", "Scores of the reward model", _reward(answers["reward"], names)))
        sections.append(("answers", "Answers", _answers(answers)))
        sections.append(("worst", "Worst prompts", _worst(answers["worst"], names)))
    sections.append(("fit", "Will it fit one node?", _fit(comparison["fit"])))
    return framed(
        f"{names['changed']} against {names['original']}",
        _cards(comparison),
        sections,
        "Every number is in comparison.json, every answer in answers.jsonl. Both models were given the same text and "
        "prompts. Intervals are for other text and prompts of the same kind.",
        kind="herdlm comparison",
        style=MORE_STYLE,
    )


def _cards(comparison: dict[str, Any]) -> Html:
    """The main figures: the memory saved, and its cost."""
    text, answers = comparison["text"], comparison["answers"]
    before, after = (comparison[side]["weight_bytes"] for side in ("original", "changed"))
    cards = [("Weights", format.size(after), f"instead of {format.size(before)}")]
    if text:
        cards.append(("KL divergence on text", format.tiny(text["kl"]), "nats per token, mean"))
        cards.append(("Same next token", format.percent(text["top1_agreement"], 2), "most likely, on text"))
    if comparison["benchmarks"] and (whole := comparison["benchmarks"]["tasks"].get("all")):
        d = whole["difference"]
        says = f"points; 95% interval {format.span(d['low'], d['high'])}"
        cards.append(("Benchmarks, difference", format.points(d["value"]), says))
    if answers:
        if (reward := answers["reward"]) and reward["difference"]:
            d = reward["difference"]
            low, high = (format.signed(d[key], 3) for key in ("low", "high"))
            cards.append(("Reward, difference", format.signed(d["value"], 3), f"95% interval {low} to {high}"))
        if whole := answers["tasks"].get("all"):
            d = whole["difference"]
            says = f"points; 95% interval {format.span(d['low'], d['high'])}"
            cards.append(("Right answers, difference", format.points(d["value"]), says))
        says = f"of {format.count(answers['prompts'])}"
        cards.append(("Same answers, letter for letter", format.percent(answers["same_answers"]), says))
    return tag(
        "ul",
        [
            tag("li", tag("h3", name), tag("div", figure, tag("small", says), class_="figure"), class_="card")
            for name, figure, says in cards
        ],
        class_="cards",
    )


def _weights(comparison: dict[str, Any]) -> Html:
    return table(
        "Weights as stored",
        ("Model", "Parameters", "In FP8", "Share in FP8", "Size"),
        (
            (
                about["name"],
                about["parameters"],
                about["fp8_parameters"],
                format.percent(about["fp8_parameters"] / about["parameters"]),
                format.size(about["weight_bytes"]),
            )
            for about in (comparison["original"], comparison["changed"])
        ),
    )


def _text(text: dict[str, Any]) -> list[Html]:
    perplexity = text["perplexity"]
    return [
        tag(
            "p",
            f"Over {format.count(text['tokens'])} tokens the perplexity went from {perplexity['original']:.4f} to "
            f"{perplexity['changed']:.4f}.",
        ),
        _divergence_table("Divergence of next-token distributions, original against changed", text),
        _spread(text["spread"]),
    ]


def _divergence_table(caption: str, divergence: dict[str, Any]) -> Html:
    rows: list[tuple[Child, ...]] = [
        ("KL, mean", format.tiny(divergence["kl"])),
        ("KL, median", format.tiny(divergence["kl_p50"])),
        ("KL, 99th percentile", format.tiny(divergence["kl_p99"])),
        ("KL, largest", format.tiny(divergence["kl_max"])),
        ("Same most likely next token", format.percent(divergence["top1_agreement"], 2)),
        ("Perplexity of the original", f"{divergence['perplexity']['original']:.4f}"),
        ("Perplexity of the changed model", f"{divergence['perplexity']['changed']:.4f}"),
        ("Tokens", divergence["tokens"]),
    ]
    return table(caption, ("Measure", "Value; divergence in nats per token"), rows)


def _spread(spread: dict[str, Any]) -> Html:
    """The share of tokens in each range of divergence."""
    names, below = [], "0"
    for bound in spread["bounds"]:
        names.append(f"{below} to {_power(bound)}" if bound else f"{below} and more")
        below = _power(bound) if bound else ""
    return table(
        "How divergence is spread over tokens",
        ("KL in nats", "Share of tokens", "As a bar"),
        (
            (name, format.percent(share, 2), charts.share_bar(share))
            for name, share in zip(names, spread["shares"], strict=True)
        ),
        text_columns=(0, 2),
    )


def _power(value: float) -> str:
    return f"{value:g}" if value >= 1e-3 else f"{value:.0e}".replace("e-0", "e\N{MINUS SIGN}")


def _reward(reward: dict[str, Any], names: dict[str, str]) -> list[Html]:
    if not reward["distribution"]:
        return [tag("p", f"{reward['prompts']} answers were scored, too few for a distribution.")]
    histogram, distribution, d = reward["histogram"], reward["distribution"], reward["difference"]
    edges = histogram["edges"]
    series = [
        charts.Series(names[side], _steps(edges, histogram[side]), look)
        for look, side in enumerate(("original", "changed"), 1)
    ]
    width = edges[-1] - edges[0]
    highest = max(100 * share for side in names for share in histogram[side])
    means = ", ".join(f"{names[side]} {distribution[side]['mean']:.3f}" for side in names)
    quantiles = list(distribution["original"]["quantiles"])
    skipped = (
        f" {reward['too_long']} answers are too long for the reward model and were left out."
        if reward["too_long"]
        else ""
    )
    return [
        tag(
            "p",
            f"A reward model sees losses that benchmarks hide. The mean score of a prompt's answers "
            f"changed by {format.signed(d['value'], 4)}, with a 95% interval of {format.signed(d['low'], 4)} to "
            f"{format.signed(d['high'], 4)}.{skipped}",
        ),
        charts.chart(
            series,
            title="Distribution of the reward model's scores",
            alt=f"Two histograms of scores. Means: {means}.",
            x="score",
            y="% of answers",
            x_scale=Scale(edges[0] - FRAME * width, edges[-1] + FRAME * width),
            y_scale=covering([0.0, highest], zero=True),
            rules=[charts.Rule("x", distribution[side]["mean"], "") for side in names],
        ),
        table(
            "Scores",
            ("Model", "Mean", "Standard deviation", *(f"Percentile {q[1:]}" for q in quantiles)),
            (
                (
                    names[side],
                    *(
                        f"{value:.3f}".replace("-", format.MINUS)
                        for value in (of["mean"], of["standard_deviation"], *of["quantiles"].values())
                    ),
                )
                for side, of in distribution.items()
            ),
        ),
    ]


def _steps(edges: list[float], shares: list[float]) -> list[tuple[float, float]]:
    """A histogram's outline in percent."""
    points = [(edges[0], 0.0)]
    for low, high, share in zip(edges, edges[1:], shares, strict=False):
        points += [(low, 100 * share), (high, 100 * share)]
    return [*points, (edges[-1], 0.0)]


def _right_table(tasks: dict[str, Any]) -> Html:
    return table(
        "Right answers; the difference is paired",
        ("Task", "Questions", "Original", "Changed", "Difference in points (95%)", "Became right, wrong"),
        (
            (
                format.words(name),
                of["questions"],
                _rate(of["original"]),
                _rate(of["changed"]),
                f"{format.points(of['difference']['value'])} "
                f"({format.span(of['difference']['low'], of['difference']['high'])})",
                f"{of['gained']}, {of['lost']}",
            )
            for name, of in tasks.items()
        ),
    )


def _benchmarks(benchmarks: dict[str, Any]) -> list[Child]:
    tasks, left_out = benchmarks["tasks"], benchmarks["too_long"]
    said = "A model's answer is the choice to which it gives the highest likelihood."
    if left_out:
        said += f" {format.count(left_out)} questions are too long for the model and were left out."
    if not tasks:
        return [tag("p", said)]
    return [
        tag("p", said),
        _right_table(tasks),
        table(
            "Nats per byte of the right choice; less is better, the difference is paired",
            ("Task", "Original", "Changed", "Difference (95%)"),
            (
                (
                    format.words(name),
                    f"{of['nats']['original']:.4f}",
                    f"{of['nats']['changed']:.4f}",
                    _interval(of["nats"]["difference"]),
                )
                for name, of in tasks.items()
            ),
        ),
    ]


def _interval(difference: dict[str, float] | None) -> str:
    if difference is None:
        return "of one question"
    value, low, high = (format.signed(difference[key], 4) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _answers(answers: dict[str, Any]) -> list[Child]:
    how = "greedily" if not answers["temperature"] else f"at temperature {answers['temperature']:g}"
    parts: list[Child] = [
        tag(
            "p",
            f"Both models answered {format.count(answers['prompts'])} prompts {how}, {answers['samples']} "
            f"answer{'s' if answers['samples'] > 1 else ''} each; {format.percent(answers['same_answers'])} of the "
            "first answers are the same letter for letter.",
        )
    ]
    if answers["along_answers"]:
        caption = "Divergence along the original's answers, at each of their tokens"
        parts.append(_divergence_table(caption, answers["along_answers"]))
    if answers["tasks"]:
        parts.append(_right_table(answers["tasks"]))
    return parts


def _rate(estimate: dict[str, float]) -> str:
    return format.rate(Interval(**estimate))


def _worst(worst: dict[str, list[dict[str, Any]]], names: dict[str, str]) -> list[Child]:
    parts: list[Child] = []
    for title, rows in (
        ("Answers that lost most reward", worst["by_reward"]),
        ("Distributions furthest apart along the original's answer", worst["by_divergence"]),
    ):
        if rows:
            parts += [tag("h3", title), [_bad(row, names) for row in rows]]
    return parts or [tag("p", "None: no prompt's answers were measured.")]


def _bad(row: dict[str, Any], names: dict[str, str]) -> Html:
    figures = []
    if row["kl"] is not None:
        figures.append(f"KL {format.tiny(row['kl'])} nats per token")
    reward, right = row.get("reward"), row.get("right")
    if reward:
        figures.append(f"reward {reward['original']:.3f} to {reward['changed']:.3f}")

    def side(name: str) -> Html:
        mark = None
        if right:
            mark = tag("span", " ✓ right" if right[name] else " ✗ wrong", class_="mark")
        said: Child = foreign(row[name]) if row[name].strip() else tag("em", "no answer")
        return tag("div", tag("dt", names[name]), tag("dd", said, mark))

    return tag(
        "div",
        tag("p", foreign(row["prompt"])),
        tag("p", "; ".join(figures), class_="quiet"),
        tag("dl", side("original"), side("changed"), class_="answers"),
        class_="worst",
    )


def _fit(fit: dict[str, Any]) -> list[Html]:
    node = fit["node"]

    def verdict(row: dict[str, Any]) -> Html:
        return tag("span", "✓ fits" if row["fits"] else "✗ does not fit", class_="fits" if row["fits"] else "fits-not")

    return [
        tag(
            "p",
            f"One node of {node['gpus']} GPUs with {node['gigabytes']:g} GB, {format.percent(node['reserve'], 0)} "
            "of it kept free; cache in BF16. herdlm fit computes this for other nodes and contexts.",
        ),
        table(
            f"Weights and cache of {fit['concurrency']} sequences",
            ("Model", "Precision", "Weights", "Tokens a sequence", "Cache", "Fits", "Most sequences"),
            (
                (
                    row["model"],
                    row["precision"],
                    format.size(row["weights"]),
                    row["context"],
                    format.size(row["cache"]),
                    verdict(row),
                    row["most_sequences"],
                )
                for row in fit["rows"]
            ),
            text_columns=(0, 1, 5),
        ),
    ]
