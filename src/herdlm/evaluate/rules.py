"""Verdicts that built-in tasks need and no verifier gives: task files name them as ``verifier = "module:function"``."""

from __future__ import annotations

from typing import Any

from herdlm.verifiers.gsm8k import extract_flexible, extract_strict, same_answer
from herdlm.verifiers.verdict import Verdict, failed, passed


def gsm8k_strict(answer: str, reference: Any) -> Verdict:
    """Whether the number after ``####`` is the reference's, as the lm-evaluation-harness compares."""
    return _gsm8k(extract_strict(answer), reference)


def gsm8k_flexible(answer: str, reference: Any) -> Verdict:
    """Whether the last number is the reference's, as the lm-evaluation-harness compares."""
    return _gsm8k(extract_flexible(answer), reference)


def _gsm8k(found: str, reference: Any) -> Verdict:
    if same_answer(found, str(reference)):
        return passed("the number is right", found=found)
    return failed("the number is wrong", found=found)
