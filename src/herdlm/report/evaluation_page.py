"""An evaluation as a page: figures with intervals, paired comparisons, groups, and all items side by side.

The page opens without a server. Its items are scripts beside it, which it loads when they are asked for.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from herdlm.base.artifact import write_text_durably
from herdlm.report import charts, format
from herdlm.report.benchmarks_section import difference_cell, figure_cell, shown_badge, to_interval
from herdlm.report.data import Interval
from herdlm.report.evaluation_items import Record, write_items
from herdlm.report.evaluation_sections import contamination_section, robustness_section
from herdlm.report.frame import Section, framed
from herdlm.report.markup import Child, Html, table, tag
from herdlm.report.scales import covering

PAGE = "index.html"
SCRIPT = Path(__file__).with_suffix(".js")
STYLE = Path(__file__).with_suffix(".css")
Results = Mapping[str, Any]


def write_evaluation_page(
    folder: Path, results: Results, records: Mapping[str, Mapping[str, Sequence[Record]]], titles: Mapping[str, str]
) -> None:
    """Write the page and its items into the folder of an evaluation.

    Args:
        results: what results.json holds.
        records: of each task, by the model's name.
        titles: of each task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {task: write_items(folder, task, each) for task, each in records.items()}
    write_text_durably(folder / PAGE, render_evaluation_page(results, records, titles, files))


def render_evaluation_page(
    results: Results,
    records: Mapping[str, Mapping[str, Sequence[Record]]],
    titles: Mapping[str, str],
    files: Mapping[str, str],
) -> str:
    """Render the page itself. Equal data give equal bytes; text of models and data is escaped.

    Args:
        files: the script with each task's items.
    """
    page = _Page(results, records, titles)
    sections: list[Section] = [("figures", "Figures", page.figures())]
    if results["comparisons"]:
        sections.append(("comparisons", "Comparisons", page.comparisons()))
    if any(page.figures_of(model, task).get("groups") for model in page.models for task in page.tasks):
        sections.append(("groups", "Groups", page.groups()))
    robustness = robustness_section(page.by_task, page.is_share)
    contamination = contamination_section(page.by_task, page.is_share)
    for id_, name, parts in (
        ("robustness", "Robustness", robustness),
        ("contamination", "Contamination", contamination),
    ):
        if parts:
            sections.append((id_, name, parts))
    sections += [("items", "Items", page.items(files)), ("settings", "Settings and versions", page.settings())]
    return framed(
        "Evaluation",
        page.summary(),
        sections,
        "Every number is in results.json, every item with the log-probability of each token in the records under "
        "models/. Intervals are for other items of the same kind.",
        kind="herdlm evaluation",
        style=STYLE.read_text(encoding="utf-8"),
        script=SCRIPT.read_text(encoding="utf-8"),
    )


class _Page:
    def __init__(
        self, results: Results, records: Mapping[str, Mapping[str, Sequence[Record]]], titles: Mapping[str, str]
    ) -> None:
        self.results, self.records, self.titles = results, records, titles
        self._models = {each["model"]: each["tasks"] for each in results["models"]}
        self.models = list(self._models)
        self.tasks = list(dict.fromkeys(task for tasks in self._models.values() for task in tasks))
        self.looks = {name: index % charts.LOOKS + 1 for index, name in enumerate(self.models)}

    @property
    def by_task(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Each task's figures by the model's name."""
        return {
            task: {model: self.figures_of(model, task) for model in self.models if self.figures_of(model, task)}
            for task in self.tasks
        }

    def figures_of(self, model: str, task: str) -> Mapping[str, Any]:
        """A model's figures on a task; empty if it has none."""
        figures: Mapping[str, Any] = self._models[model].get(task, {})
        return figures

    def summary(self) -> Html:
        models, tasks = len(self.models), len(self.tasks)
        says = (
            f"{models} model{'s' * (models != 1)} on {tasks} task{'s' * (tasks != 1)}, "
            + (f"{date}, " if (date := self.results["date"]) else "")
            + f"with herdlm {self.results['versions']['herdlm']}."
        )
        worse = sum(each["shown"] == "worse" for each in self.results["comparisons"])
        flag: Child = None
        if worse:
            flag = [" ", tag("span", f"{worse} regression{'s' * (worse != 1)}", class_="verdict contrary")]
        return tag("p", says, flag)

    def figures(self) -> list[Child]:
        rows = [
            self._row(
                [tag("a", task, href=_address(task=task)), _quiet(self.titles.get(task, ""))],
                task,
                metric,
                n=self._count(task),
            )
            for task in self.tasks
            for metric in self._metrics(task)
        ]
        return [
            tag(
                "p",
                "Each figure has its 95% interval, drawn at the right on an axis of its own in each row. "
                "The paired comparison says whether two models differ; overlapping intervals do not.",
            ),
            self._legend(),
            table(
                "Figures of all tasks",
                ("Task", "Metric", "Items", *self.models, "95% intervals"),
                rows,
                text_columns=(0, 1, 3 + len(self.models)),
            ),
        ]

    def _row(self, first: Child, task: str, metric: str, *, n: int, group: str | None = None) -> tuple[Child, ...]:
        found = {model: self._estimate(model, task, metric, group) for model in self.models}
        known = [each for each in found.values() if each is not None]
        shares = self.is_share(task, metric)
        strips: Child = None
        if bounds := [v for each in known for v in (each.low, each.high, each.value) if math.isfinite(v)]:
            scale = covering(bounds)
            strips = [
                charts.interval_strip(each, scale, look=self.looks[model])
                for model, each in found.items()
                if each is not None and math.isfinite(each.low) and math.isfinite(each.high)
            ]
        less = _quiet("less is better") if metric in self.results["lower_is_better"] else None
        cells = ["" if each is None else figure_cell(each, shares) for each in found.values()]
        return first, [tag("span", metric), less], n, *cells, strips

    def _metrics(self, task: str) -> list[str]:
        return list(
            dict.fromkeys(
                name
                for model in self.models
                for name, value in self.figures_of(model, task).items()
                if isinstance(value, Mapping) and "value" in value
            )
        )

    def _count(self, task: str) -> int:
        return max(int(self.figures_of(model, task).get("n", 0)) for model in self.models)

    def _estimate(self, model: str, task: str, metric: str, group: str | None = None) -> Interval | None:
        figures = self.figures_of(model, task)
        if group is not None:
            figures = figures.get("groups", {}).get(group, {})
        return to_interval(figures.get(metric))

    def is_share(self, task: str, metric: str) -> bool:
        """Whether a metric is shown in percent: no value is above 1, and it is no ratio such as perplexity."""
        if metric in self.results["ratios"]:
            return False
        found = (self._estimate(model, task, metric) for model in self.models)
        return all(each is None or each.value <= 1 for each in found)

    def _legend(self) -> Child:
        keys = [
            tag("li", tag("span", class_=f"swatch look{self.looks[model]}", aria_hidden="true"), model)
            for model in self.models
        ]
        return tag("ul", keys, class_="legend models")

    def comparisons(self) -> list[Child]:
        rows = []
        for each in self.results["comparisons"]:
            shares = self.is_share(each["task"], each["metric"])
            only = self._only(each["task"], each["before"], each["after"])
            rows.append(
                (
                    [tag("span", each["task"]), _quiet(each["metric"])],
                    shown_badge(each["shown"]),
                    difference_cell(each["difference"], shares),
                    tag("span", f"{each['sentence']}.", class_="sentence"),
                    only,
                )
            )
        compared = len(rows)
        return [
            tag(
                "p",
                "Differences are paired: both models were asked the same items. A difference is shown only if its "
                "whole 95% interval is on one side of 0; where none is shown, there may still be one that these items "
                f"are too few to tell. With equal models, one comparison in twenty would be shown by chance; "
                f"{format.count(compared)} {'are' if compared != 1 else 'is'} listed here.",
            ),
            table(
                f"Each model against {self.models[0]}",
                ("Task", "Shown", "Difference (95%)", "What that says", "Items"),
                rows,
                text_columns=(0, 1, 3, 4),
            ),
        ]

    def _only(self, task: str, before: str, after: str) -> Child:
        """How many items only one of two models got right, with links to them."""
        verdicts = [
            {r["id"]: r["passed"] for r in self.records.get(task, {}).get(name, ())} for name in (before, after)
        ]
        pairs = Counter((passed, verdicts[1].get(number)) for number, passed in verdicts[0].items())
        links = []
        for right, wrong, count in ((after, before, pairs[False, True]), (before, after, pairs[True, False])):
            if count:
                address = _address(task=task, right=right, wrong=wrong)
                links.append(tag("li", tag("a", f"{count:,} only {right} gets right", href=address)))
        return tag("ul", links, class_="only") if links else None

    def groups(self) -> list[Child]:
        parts: list[Child] = [self._legend()]
        for task in self.tasks:
            names = list(
                dict.fromkeys(g for model in self.models for g in self.figures_of(model, task).get("groups", {}))
            )
            if not names:
                continue
            longest = max(self.records.get(task, {}).values(), key=len, default=())
            counts = Counter(str(record.get("group")) for record in longest)
            rows = [
                self._row(
                    tag("a", name, href=_address(task=task, group=name)), task, metric, n=counts[name], group=name
                )
                for name in names
                for metric in self._metrics(task)
            ]
            shown = table(
                f"Groups of {task}",
                ("Group", "Metric", "Items", *self.models, "95% intervals"),
                rows,
                text_columns=(0, 1, 3 + len(self.models)),
            )
            parts.append(tag("details", tag("summary", f"{task}: {len(names):,} groups"), shown))
        return parts

    def items(self, files: Mapping[str, str]) -> list[Child]:
        """The places that the page's script fills."""
        told = {
            "models": self.models,
            "tasks": [
                {"name": task, "title": self.titles.get(task, ""), "file": files[task]}
                for task in self.tasks
                if task in files
            ],
        }
        data = json.dumps(told, ensure_ascii=True).replace("<", "\\u003c")
        return [
            tag("noscript", tag("p", "The list of items needs JavaScript. The figures on this page do not.")),
            Html(f'<script type="application/json" id="evaluation">{data}</script>'),
            tag("div", id="filters", class_="filters", role="search", aria_label="Filters of items"),
            tag("p", id="count", class_="quiet", aria_live="polite"),
            tag("div", id="list"),
            tag("div", id="pages", class_="pages"),
        ]

    def settings(self) -> list[Child]:
        results = self.results
        chosen = [
            (format.words(name), "as the task says" if value is None else _setting(value))
            for name, value in results["settings"].items()
        ]
        rows = [
            (
                task,
                model,
                "chat" if head.get("chat") else "plain text",
                head.get("shots", ""),
                *(_hash(head.get(key)) for key in ("model", "task", "data")),
                tag("a", "records", href=head["file"]) if "file" in head else "",
            )
            for model, each in results["evaluations"].items()
            for task, head in each.items()
        ]
        return [
            table(
                "Settings and versions of the evaluation",
                ("Name", "Value"),
                [*chosen, *results["versions"].items()],
                text_columns=(0, 1),
            ),
            table(
                "How each model was asked, and hashes (SHA-256) of what decides the result",
                ("Task", "Model", "Asked in", "Shots", "Model's hash", "Task's hash", "Data's hash", "Items"),
                rows,
                text_columns=(0, 1, 2, 4, 5, 6, 7),
            ),
        ]


def _quiet(text: str) -> Child:
    return tag("small", text, class_="quiet") if text else None


def _address(**filters: str) -> str:
    """Where the page's script shows the items that pass filters."""
    return "#" + urlencode(filters)


def _hash(value: str | None) -> Child:
    return tag("span", value[:12], class_="hash", title=value) if value else ""


def _setting(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
