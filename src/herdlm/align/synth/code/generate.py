"""Makes programming problems: mutants of given ones by program, and what a teacher invents, describes or translates."""

from __future__ import annotations

from collections.abc import Iterator

from herdlm.align.synth import records
from herdlm.align.synth.code.explain import explained
from herdlm.align.synth.code.invent import invented
from herdlm.align.synth.code.mutate import Mutant, mutants
from herdlm.align.synth.code.problems import Problem, read_problems, read_snippets
from herdlm.align.synth.code.run_code import failure
from herdlm.align.synth.code.solve import TASK
from herdlm.align.synth.code.translate import translated
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.base.errors import InputError

SHOWN = 3


def generate(setting: Setting, options: CodeConfig) -> Iterator[Made]:
    """Prompts with tests, and dialogs with code that passes them.

    Raises:
        InputError: nothing is asked for, a file cannot be read, or a part needs a teacher and there is none.
    """
    if not options.problems and not options.invent and not options.snippets:
        raise InputError(f"{setting.name}: there is nothing to make", "Give problems or snippets, or set invent")
    right: list[Problem] = []
    for number, problem in enumerate(read_problems(options.problems)):
        if options.limit is not None and number >= options.limit:
            break
        wrong = failure(setting.sandbox, problem.code, problem.tests, problem.entry)
        if wrong:
            row = {"prompt": [records.user(problem.text)], "code": problem.code, "why": wrong, "source": problem.origin}
            yield dropped(row, "the given solution fails its tests")
            continue
        right.append(problem)
        draw = Draw(setting.random("mutant", number))
        made = mutants(draw, setting.sandbox, problem, options.mutants, invent_inputs=options.invent_inputs)
        for mutant in made:
            yield from _made(setting, problem, mutant)
    if options.invent:
        yield from invented(setting, options, right)
    snippets = list(read_snippets(options.snippets))
    if options.explain:
        yield from explained(setting, options, [*snippets, *right])
    if options.translate:
        yield from translated(setting, options, right)


def _made(setting: Setting, problem: Problem, mutant: Mutant) -> Iterator[Made]:
    """Prompt and dialog of a mutant whose solution passes its tests, in another process than the one that made them."""
    shown = "\n".join(mutant.tests[:SHOWN])
    messages = [records.user(f"{mutant.text}\n\nYour code should pass these tests:\n\n{shown}")]
    source = f"synth: {problem.origin}"
    made = records.prompt(messages, task=TASK, source=source, verifier="tests", tests=mutant.tests)
    wrong = failure(setting.sandbox, mutant.code, mutant.tests, mutant.entry)
    if wrong or not setting.is_new(mutant.text + shown):
        yield dropped(made.record | {"code": mutant.code}, "the solution fails the new tests" if wrong else REPEATED)
        return
    yield made
    yield records.dialog(
        [*messages, records.assistant(f"```python\n{mutant.code}\n```")],
        task=TASK,
        source="edited",
        origin=problem.origin,
        verdict="passes the tests",
        asked=made.record["id"],
        way=mutant.way,
    )
