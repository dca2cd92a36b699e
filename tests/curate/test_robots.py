"""What owners of pages ask of robots, in meta tags and in the HTTP head."""

from __future__ import annotations

import pytest

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.robots import Robots, RobotsConfig, directives
from tests.curate.crawls import Write, article, page, record
from tests.curate.sources.test_sources import read


@pytest.mark.parametrize(
    ("head", "header", "expected"),
    [
        ('<meta name="robots" content="noindex, noai">', "", {"noindex", "noai"}),
        ("<META CONTENT='NOAI' NAME=Robots>", "", {"noai"}),
        ('<meta name="robots" content="none">', "", {"none", "noindex", "nofollow"}),
        ('<!-- <meta name="robots" content="noai"> -->', "", set()),
        ('<meta name="googlebot" content="noai"><p>robots</p>', "", set()),
        ('<meta name="description" content="noai for robots">', "", set()),
        ("", "noai, noimageai", {"noai", "noimageai"}),
        ("", "googlebot: noai", set()),
        ("", "noindex, otherbot: noai", {"noindex"}),
    ],
)
def test_directives(head: str, header: str, expected: set[str]) -> None:
    assert (
        directives(page("text", head=head), header) & {"noai", "noimageai", "noindex", "none", "nofollow"} == expected
    )


def test_the_step_follows_the_directives_of_its_key(write: Write) -> None:
    records = [
        record("https://x.example/a", page(article("en", "a"), head='<meta name="robots" content="noindex">')),
        record("https://x.example/b", page(article("en", "b")), media="text/html\r\nX-Robots-Tag: noai"),
        record("https://x.example/c", page(article("en", "c"))),
    ]
    pages = read(write("c.warc", b"".join(records)))
    batch = {"payload": [p.payload for p in pages], "robots": [p.robots for p in pages]}
    assert list(Robots(RobotsConfig()).run(batch).reasons) == [None, "noai", None]
    assert list(Robots(RobotsConfig(drop=("noindex", "noai"))).run(batch).reasons) == ["noindex", "noai", None]
    assert list(Robots(RobotsConfig(drop=())).run(batch).reasons) == [None, None, None]
    with pytest.raises(InputError, match="no directive"):
        parse(CurateConfig, {"robots": {"drop": ["nothing"]}}, "test")
