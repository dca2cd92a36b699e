"""The frame of every report page: a head with a strict policy, a skip link, navigation and a footer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from herdlm.report.markup import Child, Html, tag
from herdlm.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # defense in depth: nothing on the page can run or load

Section = tuple[str, str, Iterable[Child]]  # id, heading, content


def framed(
    heading: str,
    summary: Child,
    sections: Sequence[Section],
    foot: str,
    *,
    kind: str,
    style: str = "",
    script: str | None = None,
) -> str:
    """Render a whole page.

    Args:
        summary: goes between the heading and the navigation.
        kind: follows the heading in the page's title.
        style: further CSS rules after :data:`herdlm.report.style.STYLE`.
        script: of the few pages that have one, JavaScript without a closing script tag. The policy lets this text
            run, and the scripts that it adds, and no other.
    """
    policy = POLICY
    if script is not None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}' 'strict-dynamic'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{heading} - {kind}"),
        Html(f"<style>{STYLE}{style}</style>"),
    )
    links = tag("ul", [tag("li", tag("a", name, href=f"#{id_}")) for id_, name, _ in sections])
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("header", tag("h1", heading), summary, tag("nav", links, aria_label="Sections")),
        tag(
            "main",
            [tag("section", tag("h2", name), parts, id=id_, aria_label=name) for id_, name, parts in sections],
            id="content",
        ),
        tag("footer", tag("p", foot)),
        Html(f"<script>{script}</script>") if script is not None else None,
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en').text}\n"
