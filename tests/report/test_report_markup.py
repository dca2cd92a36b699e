"""Text is escaped wherever it enters, and axes put values where they belong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.report.format import percent, seconds, signed, size, tiny
from herdlm.report.markup import Html, escape, foreign, render, tag
from herdlm.report.scales import Scale, covering, tick_text


def test_plain_text_is_escaped_in_content_and_attributes() -> None:
    assert tag("p", "<b>&\"'").text == "<p>&lt;b&gt;&amp;&quot;&#x27;</p>"
    assert tag("p", title='"><script>').text == '<p title="&quot;&gt;&lt;script&gt;"></p>'
    assert tag("p", [["<"], None, Html("<br>"), 1234], class_="a").text == '<p class="a">&lt;<br>1,234</p>'
    assert "<script" not in foreign("<script>").text


def test_what_has_no_place_in_html_is_made_visible() -> None:
    assert escape("a\x00b\x1bc\x7fd\x85e\ud800f\tg\n") == "a\u2400b\u241bc\u2421d\ufffde\ufffdf\tg\n"


@given(st.text(st.characters()))
def test_escaped_text_can_neither_open_a_tag_nor_leave_an_attribute(text: str) -> None:
    written = render(text)
    assert not set("<>\"'\x00") & set(written)
    written.encode("utf-8")


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_linear_ticks_are_few_and_on_the_axis(low: float, span: float) -> None:
    scale = Scale(low, low + span)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    assert all(-1e-6 <= scale.at(tick) <= 1 + 1e-6 for tick in ticks)


def test_a_logarithmic_axis_spaces_ratios_evenly() -> None:
    scale = Scale(10.0, 1000.0, log=True)
    assert scale.at(100.0) == pytest.approx(0.5)
    assert scale.ticks() == pytest.approx([10, 20, 50, 100, 200, 500, 1000])
    assert len(Scale(4.7, 5.3, log=True).ticks()) >= 3


def test_a_scale_covers_its_values_with_room() -> None:
    scale = covering([1.0, 3.0])
    assert scale.low < 1 and scale.high > 3
    flat = covering([2.0, 2.0])
    assert math.isfinite(flat.at(2.0)) and flat.low < 2 < flat.high
    assert covering([0.5, 3.0], zero=True).low == 0


def test_numbers_are_written_for_people() -> None:
    minus = "\N{MINUS SIGN}"
    assert [tick_text(v) for v in (0.5, 5000, 1_500_000, -2)] == ["0.5", "5k", "1.5M", f"{minus}2"]
    assert (signed(-0.04), signed(-1.26), signed(2)) == ("0.0", f"{minus}1.3", "+2.0")
    assert (percent(0.1234), tiny(0.000912), tiny(1.2e-7), tiny(0.0)) == ("12.3%", "0.00091", "0.00000012", "0.0")
    assert [size(v) for v in (999, 1000, 2.5e6, 3e12)] == ["999 bytes", "1.0 kB", "2.5 MB", "3.0 TB"]
    assert [seconds(v) for v in (9.96, 100, 3725)] == ["10.0 s", "1 min 40 s", "1 h 02 min"]
