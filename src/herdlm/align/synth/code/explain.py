"""Real functions that a teacher describes, and writes again from its description alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from herdlm.align.synth import records
from herdlm.align.synth.code.inputs import new_inputs
from herdlm.align.synth.code.problems import Problem, calls_in, functions_of
from herdlm.align.synth.code.run_code import asserts, outputs, tell_nothing
from herdlm.align.synth.code.solve import SOLVE, TEST, Try, asserts_in, solved
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped

MOST_TESTS = 12
EXPLAIN = (
    "Here is a Python function:\n\n```python\n{code}\n```\n\nDescribe what it does so that someone can write it "
    "without seeing it: its name, what it gets, what it returns, and what happens in special cases. Write no code."
)


def explained(setting: Setting, options: CodeConfig, snippets: Sequence[Problem]) -> Iterator[Made]:
    """Real functions that the teacher describes, and writes again from its description alone.

    What it writes must return the same on generated inputs. A snippet of a problem has inputs in its tests; of others
    the teacher is asked for calls.
    """
    name = setting.need_teacher("explain").name
    calls = _calls_for(setting, options, snippets)
    told = setting.ask(
        [[records.user(EXPLAIN.format(code=each.code))] for each in snippets],
        "explain",
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    tries = []
    for number, (each, (answer,)) in enumerate(zip(snippets, told, strict=True)):
        row = {"code": each.code, "description": answer.text}
        inputs = list(calls[number])
        if inputs:
            inputs += new_inputs(Draw(setting.random("inputs", number)), inputs)
        results = outputs(setting.sandbox, each.code, each.entry, inputs)
        tests = asserts(each.entry, inputs, results)[:MOST_TESTS]
        text = answer.text.strip()
        if len(tests) < options.least_tests or tell_nothing(tests):
            yield dropped(row, "too few inputs on which the original can be run")
        elif answer.finish != "stop" or "```" in text or each.entry not in text:
            yield dropped(row, "the description is cut off, has code, or does not name the function")
        elif not setting.is_new(text):
            yield dropped(row, REPEATED)
        else:
            tries.append(Try(text, tests, each.entry, [records.user(SOLVE.format(problem=text))], row))
    yield from solved(setting, options, tries, name=name, what="write again")


def _calls_for(setting: Setting, options: CodeConfig, snippets: Sequence[Problem]) -> list[list[str]]:
    """Argument texts of calls of each snippet."""
    without = [each for each in snippets if not each.calls]
    asked = setting.ask(
        [[records.user(TEST.format(problem=f"```python\n{each.code}\n```", count=6))] for each in without],
        "calls",
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    found = {id(each): _literal_calls(answers[0].text, each) for each, answers in zip(without, asked, strict=True)}
    return [list(each.calls) or found[id(each)] for each in snippets]


def _literal_calls(text: str, snippet: Problem) -> list[str]:
    defined = functions_of(snippet.code)
    return [arguments for test in asserts_in(text, snippet.entry) for _, arguments in calls_in(test, defined)]
