"""Verdicts on right and wrong solutions of HumanEval and MBPP equal those of plain execution in a fresh process."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from herdlm.sandbox.limits import Limits
from herdlm.sandbox.sandbox import TestJob, open_sandbox
from tests.sandbox.mutants import KINDS, mutant
from tests.sandbox.problems import FOLDER, humaneval, mbpp, passes_plainly

FEW = [*humaneval(FOLDER / "humaneval.jsonl"), *mbpp(FOLDER / "mbpp.jsonl")]
# Mutants that loop forever reach it; others need a small part of it.
LIMITS = Limits(cpu_seconds=30, wall_seconds=60)


def with_mutants(problems, count, seed):
    """(problem, code) of ``count`` wrong solutions, kinds in turn; some of them are right after all."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        for problem in rng.sample(problems, len(problems)):
            code = mutant(problem.code, problem.entry_point, KINDS[len(found) % len(KINDS)], rng)
            if code is not None and len(found) < count:
                found.append((problem, code))
    return found


def job(problem, code, prelude=""):
    return TestJob(code, problem.tests, entry_point=problem.entry_point, prelude=prelude, limits=LIMITS)


@pytest.mark.parametrize("problem", FEW, ids=lambda problem: problem.name)
def test_solutions_pass(sandbox, problem):
    for prelude in {"", problem.prelude}:
        result = sandbox.run_tests(problem.code, problem.tests, entry_point=problem.entry_point, prelude=prelude)
        assert result.passed, result.reason


def test_wrong_solutions_get_the_verdict_of_plain_execution(sandbox):
    wrong = [(p, code) for p, code in with_mutants(FEW, 24, seed=0) if "while" not in code]
    verdicts = [result.passed for result in sandbox.map([job(*each) for each in wrong])]
    assert verdicts == [passes_plainly(code, problem.tests) for problem, code in wrong]
    assert verdicts.count(False) > 15


@pytest.fixture(scope="module")
def everything():
    if "HERDLM_DATA" not in os.environ:
        pytest.skip("HERDLM_DATA names no folder with eval/HumanEval.jsonl.gz and posttrain/mbpp.jsonl")
    data = Path(os.environ["HERDLM_DATA"])
    return [*humaneval(data / "eval" / "HumanEval.jsonl.gz"), *mbpp(data / "posttrain" / "mbpp.jsonl")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in the problems
def test_all_verdicts_equal_those_of_plain_execution(everything):
    right = [(problem, problem.code) for problem in everything]
    cases = [*right, *with_mutants(everything, 600, seed=1)]
    with open_sandbox() as opened:
        verdicts = [result.passed for result in opened.map([job(*case) for case in cases])]
        with_prelude = list(opened.map([job(p, p.code, p.prelude) for p in everything if p.prelude]))
    with ThreadPoolExecutor(2) as pool:
        plain = list(pool.map(lambda case: passes_plainly(case[1], case[0].tests), cases))
    different = [case[0].name for case, one, other in zip(cases, verdicts, plain, strict=True) if one != other]
    assert different == []
    assert verdicts[: len(right)].count(True) == len(right)
    assert [result.reason for result in with_prelude if not result.passed] == []
    assert verdicts[len(right) :].count(False) >= 500
