"""GSM8K's two extractions and its comparison, as the lm-evaluation-harness defines them (task gsm8k, version 3).

They differ from :mod:`herdlm.verifiers.number`, which reads more forms of numbers: use these to compare with
published figures.
"""

from __future__ import annotations

import re

STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = (re.compile(","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))
NOTHING = "[invalid]"


def extract_strict(answer: str) -> str:
    """The first number after ``####``; ``[invalid]`` without one."""
    match = STRICT.search(answer)
    return match[1].strip() if match else NOTHING


def extract_flexible(answer: str) -> str:
    """The last thing that looks like a number, a lone run of ``.,$`` included; ``[invalid]`` without one."""
    last = NOTHING
    for match in FLEXIBLE.finditer(answer):
        last = match[0].strip()
    return last


def same_answer(extracted: str, reference: str) -> bool:
    """Whether an extracted number equals the reference, a number or a worked answer with ``####``."""
    return _bare(extracted) == _bare(reference)


def _bare(text: str) -> str:
    for pattern in IGNORED:
        text = pattern.sub("", text)
    return text.lower()
