"""Domains by rules, caps on their shares, and the heuristics that hold for them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.curate.grade.rubric import load_rubric
from herdlm.curate.steps.domains.classifier import DOMAINS, DomainRules, DomainsConfig, open_domains
from herdlm.curate.steps.domains.rules import CODE, FEWEST_MARKS, GENERAL, MATHEMATICS, domain_of
from herdlm.curate.steps.domains.shares import TOO_COMMON, check_share, keep_shares
from herdlm.curate.steps.heuristics import RELAXED, HeuristicsConfig, check_text, heuristics_for
from tests.curate.crawls import article

PROGRAM = """def area(shape):
    \"\"\"Give the area of a shape in square metres, or raise where it has none.\"\"\"
    if shape.kind == "circle":
        return shape.radius ** 2 * 3.14159
    elif shape.kind == "square":
        return shape.side ** 2
    raise ValueError(shape.kind)
"""
C_PROGRAM = """#include <stdio.h>
int main(void) {
    int total = 0;
    for (int i = 0; i < 10; i++) {
        total += i;
    }
    printf("%d\\n", total);
    return 0;
}
"""
SHELL = "$ cd build\n$ make all\n$ ./configure --prefix=/usr\nexport PATH=/usr/bin:$PATH\n"
QUERY = "SELECT name, count(*) FROM visits\n    WHERE year = 2001\n    GROUP BY name;\nDROP TABLE visits;\n"
PROOF = (
    "Theorem 3. Let f(x) = x^2 + 3x be a polynomial over \\mathbb{R}. Then \\int_0^1 f(x) dx = 11/6.\n"
    "Proof. We have \\int_0^1 x^2 dx = \\frac{1}{3} and \\int_0^1 3x dx = \\frac{3}{2}, and 1/3 + 3/2 = 11/6."
)
SUMS = "She has 16 - 3 = 13 eggs left. At $2 each she makes 13 * 2 = 26 dollars a day, and 26 * 7 = 182 in a week."
SYMBOLS = "对于任意 ε > 0 存在 δ > 0，使得 ∀x ∈ ℝ，|x − a| ≤ δ ⇒ |f(x) − f(a)| ≤ ε。"
DATED = "On 2024-01-02, at 10:15, version 1.2.3-4 of the A/C unit (see RFC 2616) was sold to Mr. X = the buyer."
GREEK = "Η θάλασσα ήταν ήρεμη και ο ήλιος έδυε. Η πόλη κοιμόταν ή ξυπνούσε, ό τι κι αν έλεγε ο άνεμος."


def test_programs_formulas_and_prose_are_told_apart() -> None:
    for text in (PROGRAM, C_PROGRAM, SHELL, QUERY):
        assert domain_of(text) == CODE, text
    for text in (PROOF, SUMS, SYMBOLS):
        assert domain_of(text) == MATHEMATICS, text
    for text in (DATED, GREEK, "", *(article(language, "a") for language in ("en", "de", "fr", "ja"))):
        assert domain_of(text) == GENERAL, text


def test_a_program_within_prose_makes_code_from_a_share_on() -> None:
    assert domain_of(article("en", "a") + "\n\n" + PROGRAM) == GENERAL
    assert domain_of(article("en", "a")[:200] + "\n\n" + PROGRAM) == CODE


def test_marks_of_mathematics_are_counted_one_by_one() -> None:
    """A text is mathematics from its third mark on, and not before."""
    for text, marks in {
        "\\frac{a}{b}": 1,
        "3 * 4": 1,
        "3*4": 1,
        "where x = 2": 1,
        "f(x) = 3": 1,
        "a^2": 1,
        "2 - 1": 1,
        "1999-2004": 0,
        "c++ and a+b": 0,
        "∑ ∫": 2,
        "the angle α": 1,
        "αβγ": 0,
        "<mi>x</mi>": 2,
        "theorem": 1,
        "the logarithmic": 1,
        "C:\\temp": 0,
        "100 % = all": 0,
    }.items():
        lines = [f"so {text}, they say"] * 100  # which no program says
        needed = -(-FEWEST_MARKS // marks) if marks else len(lines)
        assert domain_of("\n".join(lines[:needed])) == (MATHEMATICS if marks else GENERAL), text
        assert domain_of("\n".join(lines[: needed - 1])) == GENERAL, text


@pytest.mark.skipif("HERDLM_DATA" not in os.environ, reason="HERDLM_DATA names no folder of data")
def test_rules_know_the_kinds_of_public_sets() -> None:
    folder = Path(os.environ["HERDLM_DATA"])

    def share(path: str, domain: str, *fields: str) -> float:
        whole = (folder / path).read_bytes()
        rows = [json.loads(line) for line in (gzip.decompress(whole) if path.endswith(".gz") else whole).splitlines()]
        return sum(domain_of("".join(row[f] for f in fields)) == domain for row in rows) / len(rows)

    assert share("eval/HumanEval.jsonl.gz", CODE, "prompt", "canonical_solution") > 0.98
    assert share("eval/gsm8k-test.jsonl", MATHEMATICS, "answer") > 0.93
    assert share("eval/gsm8k-test.jsonl", GENERAL, "question") > 0.98
    assert share("posttrain/hh-harmless-test.jsonl.gz", GENERAL, "chosen") > 0.99


def test_the_rubric_of_domains_names_them_all() -> None:
    assert load_rubric("domains").answers == DOMAINS and set(DomainRules.names) <= set(DOMAINS)
    assert 10 <= len(DOMAINS) <= 20


def test_a_domain_that_is_never_found_cannot_be_capped() -> None:
    assert open_domains(DomainsConfig(max_share={"code": 0.2})).label([PROGRAM, PROOF]) == [CODE, MATHEMATICS]
    with pytest.raises(InputError, match="max_share caps sports"):
        open_domains(DomainsConfig(max_share={"sports": 0.2}))
    with pytest.raises(InputError, match="there is no domain classifier"):
        open_domains(DomainsConfig(model="nowhere"))


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 1000), min_size=1),
    st.dictionaries(st.sampled_from("abcde"), st.floats(0.01, 0.99)),
)
def test_caps_hold_exactly_and_cost_no_more_than_they_must(words: dict[str, int], caps: dict[str, float]) -> None:
    try:
        shares = keep_shares(words, caps)
    except InputError:
        free = sum(count for name, count in words.items() if name not in caps)
        assert free == 0 or sum(caps.values()) >= 1
        return
    kept = {name: count * shares[name] for name, count in words.items()}
    total = sum(kept.values())
    for name, count in kept.items():
        assert 0 <= shares[name] <= 1
        assert name not in caps or count <= caps[name] * total + 1e-6
        assert shares[name] == 1 or count == pytest.approx(caps[name] * total)  # what is thinned is at its cap


def test_a_document_kept_at_a_share_is_kept_at_every_larger_one() -> None:
    ids = [f"doc-{i}" for i in range(4000)]
    kept = {
        share: {i for i in ids if check_share(i, "a", {"a": share}, seed=5) is None} for share in (0.0, 0.2, 0.5, 1.0)
    }
    assert kept[0.0] <= kept[0.2] <= kept[0.5] <= kept[1.0] == set(ids)
    assert not kept[0.0] and len(kept[0.2]) == pytest.approx(800, abs=100)
    assert check_share("doc-0", "a", {"a": 0.0}, seed=5) == TOO_COMMON
    assert kept[0.5] != {i for i in ids if check_share(i, "a", {"a": 0.5}, seed=6) is None}


def test_only_thresholds_of_the_table_are_relaxed_and_none_is_tightened() -> None:
    config = HeuristicsConfig(max_short_lines=0.95, min_words=10)
    assert heuristics_for(GENERAL, config) == config
    for domain, table in RELAXED.items():
        relaxed = heuristics_for(domain, config)
        changed = {key for key in type(config).model_fields if getattr(relaxed, key) != getattr(config, key)}
        assert changed <= set(table)
    assert heuristics_for(MATHEMATICS, config).max_short_lines == 0.95


def test_a_program_passes_the_heuristics_of_code_and_navigation_does_not() -> None:
    program = "\n".join(PROGRAM.replace("area", f"area_{i}").replace("shape", f"part{i}") for i in range(6))
    code = HeuristicsConfig(max_duplicate_ngram_chars=(0.5,) * 6, max_top_ngram_chars=(0.4,) * 3)
    assert check_text(program, "en", code) is not None
    assert check_text(program, "en", heuristics_for(CODE, code)) is None
    menu = "\n".join(["Home", "News", "About us", "Contact", "Imprint"] * 15)
    assert check_text(menu, "en", heuristics_for(CODE, HeuristicsConfig())) is not None
