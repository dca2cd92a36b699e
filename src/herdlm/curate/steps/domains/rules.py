"""Rules that recognize code and mathematics in any language, without labels.

A text is **code** if at least ``MIN_CODE`` of its characters are on lines that read like a program: an import, a
definition, an assignment or a call on its own line, a line that ends in a brace or in a semicolon after a bracket or a
name, a prompt, markup, or indented lines that follow such a line. It is **mathematics** if it has at least
``MIN_MARKS`` marks per word: a LaTeX command, a MathML tag, a symbol of Unicode's mathematical blocks, an equation,
arithmetic on numbers, or a word such as theorem. Code is checked first, since programs are full of equations. All else
is **general**.
"""

from __future__ import annotations

import re

from herdlm.curate.words import Words, beyond_ascii

CODE, MATHEMATICS, GENERAL = "code", "mathematics", "general"

MIN_CODE = 0.3
MIN_MARKS = 0.03
FEWEST_MARKS = 3
READ_CHARS = 20_000
LONGEST_CODE_LINE = 240

# The start of a line of code, without leading spaces.
_BEGINS = re.compile(
    r"""(?:async\ )?(?:def|func|fn|function)\ +\w+\ ?\(
      | (?:class|interface|struct|enum|namespace)\ +[\w.:]+[^.!?]*[:{(]$
      | (?:import|package|using|use|require|export)\ +["'<{*\w][\w.{}*"'/:<>,\ ]*;?$
      | from\ +[\w.]+\ +import\ +\S
      | \#(?:\ ?(?:include|define|ifdef|ifndef|endif|pragma)\b|!/)
      | (?:public|private|protected|static|const|let|var|val|final)\ +[\w<>\[\],\ .]+[=({;]
      | (?:if|for|while|switch|elif|elseif|catch)\ ?\([^.!?]*\)\ ?[{:]?$
      | (?:if|for|while|elif|with|except|else|try|finally)\b[^.!?]*(?:[=(<>\[]|\ (?:in|not|is|as)\ )[^!?]*:$
      | (?:else|try|finally|do)\ ?[:{]$
      | return\b\ ?[\w.()\[\]{}'"+*/<>=!&|,\ -]*;?$
      | (?:\$|%|>>>|\.\.\.)\ +[\w./]
      | (?:SELECT|INSERT\ INTO|UPDATE|DELETE\ FROM|CREATE\ TABLE|ALTER\ TABLE|DROP\ TABLE)\ +[\w*("`.]+
      | //|/\*|\*/|<!--|<\?
      | </?[A-Za-z][\w:-]*(?:\ [^<>]*)?/?>
    """,
    re.VERBOSE,
)
_ASSIGNMENT = re.compile(r"[\w.\[\]'\"*$&@-]+ ?(?:[-+*/|&^]|:)?= ?[^=\s]")
_CALL = re.compile(r"[\w.:>$-]*\w\([^()]*(?:\([^()]*\)[^()]*)*\)[;,]?$")
_BEFORE_SEMICOLON = re.compile(r"[)\]}'\"]\s*;$|=[^.!?]*;$")
_ENDS = ("{", "}", "};", "});", "})", "},", "],", "),")

_LATEX = re.compile(
    r"\\(?:d?frac|sum|int|prod|sqrt|cdot|times|[lgn]eq?|alpha|beta|gamma|delta|epsilon|theta|lambda|mu|pi|sigma|phi|omega"
    r"|infty|partial|nabla|in|subset|cup|cap|forall|exists|math\w+|left|right|begin|end|lim|log|ln|sin|cos|tan|to"
    r"|[rR]ightarrow|implies|equiv|approx|text|boxed|vec|hat|bar)(?![A-Za-z])"
)
_MATHML = re.compile(r"</?(?:math|mrow|mfrac|msup|msub|msqrt|mi|mn|mo)\b")
_SYMBOL = re.compile("[\u2200-\u22ff\u2a00-\u2aff\U0001d400-\U0001d7ff\u00d7\u00f7\u00b1\u00b2\u00b3\u2070-\u208e]")
_GREEK = re.compile(
    "(?<![\\w\u0370-\u03ff])[\u03b1-\u03c9\u0393\u0394\u0398\u039b\u03a0\u03a3\u03a6\u03a8\u03a9](?![\\w\u0370-\u03ff])"
)
_ANY_GREEK = re.compile("[\u03b1-\u03c9\u0393\u0394\u0398\u039b\u03a0\u03a3\u03a6\u03a8\u03a9]")
# Each pattern begins at its operator, which is quick to find: 3 * 4, x = 2, f(x) = 2, a^2.
_EQUATION = re.compile(
    r"""[+*^](?:(?<=\d.)|(?<=\d[ ].))[ ]?\$?[\d(]
      | [-/](?<=\d[ ].)[ ]\$?\d
      | =(?:(?<=[\d)%].)|(?<=[\d)%][ ].)|(?<=\W[A-Za-z].)|(?<=\W[A-Za-z][ ].)|(?<=\([a-z]\).)|(?<=\([a-z]\)[ ].))
         [ ]?[-$(]?[\d(\\]
      | \^[\w{(](?<=\w..)
    """,
    re.VERBOSE,
)
_OPERATORS = ("=", "^", "+", "*", " - ", " / ")  # every match of the pattern contains one
_STEMS = (
    "theorem",
    "théorème",
    "teorema",
    "lemma",
    "corollar",
    "korollar",
    "polynom",
    "eigenv",
    "hypotenuse",
    "logarithm",
    "isomorph",
    "biject",
    "axiom",
    "gleichung",
    "quadratic",
)


def _is_code(line: str) -> bool:
    if len(line) > LONGEST_CODE_LINE:
        return False
    if _BEGINS.match(line) or line.endswith(_ENDS):
        return True
    if ("=" in line and _ASSIGNMENT.match(line)) or ("(" in line and _CALL.match(line)):
        return True
    return line[-1] == ";" and _BEFORE_SEMICOLON.search(line) is not None


def _quick_marks(text: str) -> int:
    """Count the marks that are quick to find or that few texts have: commands, tags, symbols."""
    found = 0
    if "\\" in text:
        found += len(_LATEX.findall(text))
    if "<m" in text or "</m" in text:
        found += len(_MATHML.findall(text))
    if not text.isascii():
        beyond = beyond_ascii(text)
        found += len(_SYMBOL.findall(beyond))
        if _ANY_GREEK.search(beyond):
            found += len(_GREEK.findall(text))
    return found


def domain_of(text: str, words: Words | None = None) -> str:
    """Return ``code``, ``mathematics`` or ``general``, judged by the first ``READ_CHARS`` characters.

    ``words`` are those of the whole text, if available.
    """
    words = words or Words(text)
    count = words.count if words.spaced and len(text) <= READ_CHARS else len(text[:READ_CHARS].split())
    text = text[:READ_CHARS]
    if _is_mostly_code(text):
        return CODE
    needed = max(FEWEST_MARKS, MIN_MARKS * count)
    vocabulary = "\n".join(words.lowered)
    stems = [stem for stem in _STEMS if stem in vocabulary]
    found = _quick_marks(text) + (sum(map(text.lower().count, stems)) if stems else 0)
    if found + sum(map(text.count, _OPERATORS)) >= needed:
        found += len(_EQUATION.findall(text))
    return MATHEMATICS if found >= needed else GENERAL


def _is_mostly_code(text: str) -> bool:
    """Return whether a share of ``MIN_CODE`` of a text's characters is on lines of code.

    Spaces around lines do not count. It reads no further than needed.
    """
    lines = [(raw, line) for raw in text.split("\n") if (line := raw.strip())]
    total = left = sum([len(line) for _, line in lines])
    inside = False
    for raw, line in lines:
        inside = _is_code(line) or (inside and raw[:1].isspace())
        if not inside:
            left -= len(line)
            if left / total < MIN_CODE:
                return False
    return total > 0
