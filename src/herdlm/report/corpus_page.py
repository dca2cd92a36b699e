"""The HTML page of a corpus: the funnel, reasons for drops, languages, domains and samples side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from herdlm.report import charts, format
from herdlm.report.frame import framed
from herdlm.report.markup import Child, Html, foreign, table, tag

PAGE = "account.html"
MORE_STYLE = """
.funnel { display: grid; grid-template-columns: max-content minmax(6rem, 1fr) max-content; gap: .35rem .9rem;
  margin: 1rem 0 1.5rem; font-variant-numeric: tabular-nums; font-size: .92rem; }
.funnel > div { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; }
.funnel .bar { display: flex; height: 1.15rem; background: var(--shade); border-radius: .2rem; overflow: hidden; }
.funnel .left { background: var(--c1); } .funnel .out { background: var(--c2); }
.swatch { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; vertical-align: -.05rem; }
.swatch.left { background: var(--c1); } .swatch.out { background: var(--c2); }
.swatch.before { background: var(--shade); }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 1.5rem; }
.sides > div { min-width: 0; }
.sample { border-left: 3px solid var(--edge); padding: .1rem 0 .1rem .7rem; margin: .8rem 0; min-width: 0; }
.sample p { margin: 0 0 .25rem; font-size: .82rem; overflow-wrap: anywhere; }
.sample .foreign { display: block; max-height: 11rem; overflow: auto; }
.sample.dropped { border-color: var(--bad); border-left-style: double; } .sample.kept { border-color: var(--good); }
@media (max-width: 32rem) { .funnel { grid-template-columns: 1fr max-content; }
  .funnel .bar { grid-column: 1 / -1; order: 1; } }
"""


def write_corpus_page(folder: Path) -> None:
    """Write ``account.html`` into a corpus folder from its ``funnel.json`` and ``samples.json``."""
    funnel, samples = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("funnel.json", "samples.json")
    )
    (folder / PAGE).write_text(render_corpus_page(funnel, samples), encoding="utf-8")


def render_corpus_page(funnel: dict[str, Any], samples: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Render the page. Equal data give equal bytes; text from web pages is escaped."""
    sections = (
        ("funnel", "The funnel", _funnel(funnel)),
        ("reasons", "Why documents were dropped", [_reasons(funnel)]),
        ("languages", "Languages", [_languages(funnel)]),
        ("domains", "Domains", [_domains(funnel)]),
        ("samples", "Samples of each step", _samples(funnel, samples)),
    )
    read, out = funnel["input"], funnel["output"]
    summary = tag(
        "p",
        f"{format.count(read['documents'])} pages from {format.count(read['files'])} "
        f"file{'s' * (read['files'] != 1)} "
        f"({format.size(read['file_bytes'])}) became {format.count(out['documents'])} documents with "
        f"{format.size(out['bytes'])} of text, {format.count(out['words'])} words, an estimated "
        f"{format.count(out['tokens_estimated'])} tokens.",
    )
    return framed(
        "Account of a corpus",
        summary,
        sections,
        "Every number is in funnel.json, every sample in samples.json; herdlm inspect shows "
        "more documents. Tokens are estimated as 1.3 a word until a tokenizer is trained.",
        kind="herdlm",
        style=MORE_STYLE,
    )


def _funnel(funnel: dict[str, Any]) -> list[Html]:
    total = max(funnel["input"]["documents"], 1)
    bars: list[Child] = []
    for step in funnel["steps"]:
        left, out = (step[f"documents_{kind}"] / total for kind in ("out", "dropped"))
        says = f"{format.count(step['documents_out'])} left, {format.count(step['documents_dropped'])} dropped"
        bar = tag(
            "span",
            tag("span", class_="left", style=f"width: {100 * left:.3f}%"),
            tag("span", class_="out", style=f"width: {100 * out:.3f}%"),
            class_="bar",
            aria_hidden="true",
        )
        bars.append(tag("div", tag("span", format.words(step["step"])), bar, tag("span", says)))
    steps = table(
        "Each step in documents, bytes and estimated tokens",
        ("Step", "In", "Dropped", "Left", "Bytes in", "Bytes dropped", "Bytes cut out", "Bytes left", "Tokens left"),
        (
            (
                format.words(s["step"]),
                s["documents_in"],
                s["documents_dropped"],
                s["documents_out"],
                *(format.size(s[f"bytes_{kind}"]) for kind in ("in", "dropped", "removed", "out")),
                format.count(s["tokens_estimated_out"]) if s["tokens_estimated_out"] else "not known",
            )
            for s in funnel["steps"]
        ),
    )
    key = tag(
        "p",
        tag("span", class_="swatch left"),
        " left after the step, ",
        tag("span", class_="swatch out"),
        " dropped by it, ",
        tag("span", class_="swatch before"),
        " dropped before, as shares of all pages read. "
        "Bytes are of pages as read up to extraction, of text from there on; bytes cut out are markup, boilerplate "
        "and what was taken from documents that stay.",
        class_="quiet",
    )
    return [tag("div", bars, class_="funnel"), key, steps]


def _reasons(funnel: dict[str, Any]) -> Html:
    total = max(funnel["input"]["documents"], 1)
    return table(
        "Reasons, most frequent first within each step",
        ("Reason", "Step", "Documents", "Share of all", "Bytes"),
        (
            (
                format.words(reason),
                format.words(s["step"]),
                of["documents"],
                format.percent(of["documents"] / total),
                format.size(of["bytes"]),
            )
            for s in funnel["steps"]
            for reason, of in s["dropped"].items()
        ),
        text_columns=(0, 1),
    )


def _languages(funnel: dict[str, Any]) -> Html:
    names = sorted({name for step in funnel["steps"] for name in step["languages"]} - {"unknown"})
    kept = funnel["languages"]
    seen = {name: max(s["languages"].get(name, {}).get("documents_in", 0) for s in funnel["steps"]) for name in names}
    dropped = {
        name: sum(of["documents_in"] - of["documents_out"] for s in funnel["steps"] if (of := s["languages"].get(name)))
        for name in names
    }
    names.sort(key=lambda name: (-kept.get(name, {}).get("bytes", 0), -seen[name], name))
    whole = max(funnel["output"]["bytes"], 1)
    return table(
        "Languages as identified",
        ("Language", "Dropped", "Kept", "Words", "Text", "Share of text", "As a bar"),
        (
            (
                tag("code", name),
                dropped[name],
                of.get("documents", 0),
                of.get("words", 0),
                format.size(of.get("bytes", 0)),
                format.percent(of.get("bytes", 0) / whole),
                charts.share_bar(of.get("bytes", 0) / whole),
            )
            for name in names
            for of in [kept.get(name, {})]
        ),
        text_columns=(0, 6),
    )


def _domains(funnel: dict[str, Any]) -> Html:
    return table(
        "Domains with most pages",
        ("Domain", "Pages read", "Documents kept", "Share kept", "As a bar"),
        (
            (
                foreign(name) if name else "(no address)",
                of["documents_in"],
                of["documents_out"],
                format.percent(share),
                charts.share_bar(share),
            )
            for name, of in funnel["domains"].items()
            for share in [of["documents_out"] / max(of["documents_in"], 1)]
        ),
        text_columns=(0, 4),
    )


def _samples(funnel: dict[str, Any], samples: dict[str, dict[str, list[dict[str, Any]]]]) -> Iterable[Html]:
    yield tag("p", "Drawn at random. Before extraction the raw page is shown, from there on its text.", class_="quiet")
    for step in funnel["steps"]:
        drawn = samples[step["step"]]
        sides = [
            tag(
                "div",
                tag(
                    "h3",
                    f"{name} by {format.words(step['step'])} ({len(drawn[side])} of "
                    f"{format.count(step[f'documents_{count}'])})",
                ),
                [_sample(page, side) for page in drawn[side]] or tag("p", "None.", class_="quiet"),
            )
            for side, name, count in (("kept", "Let through", "out"), ("dropped", "Dropped", "dropped"))
        ]
        title = tag(
            "summary",
            f"{format.words(step['step'])}: {len(drawn['kept'])} let through, {len(drawn['dropped'])} dropped",
        )
        yield tag("details", title, tag("div", sides, class_="sides"))


def _sample(page: dict[str, Any], side: str) -> Html:
    reason: list[Child] = [tag("strong", format.words(page["reason"])), " "] if page["reason"] else []
    language: list[Child] = [tag("code", page["language"]), " "] if page["language"] else []
    return tag(
        "div",
        tag("p", reason, language, foreign(page["url"] or page["id"])),
        foreign(page["text"]) if page["text"] else tag("p", "(nothing of it was read)", class_="quiet"),
        class_=f"sample {side}",
    )
