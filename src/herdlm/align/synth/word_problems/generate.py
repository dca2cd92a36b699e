"""Makes word problems by program, and has a teacher reword and solve given ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from herdlm.align.synth import records
from herdlm.align.synth.config import WordProblemsConfig
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.word_problems import counting, measuring, paying
from herdlm.align.synth.word_problems.chain import chain
from herdlm.align.synth.word_problems.check import check_worked
from herdlm.align.synth.word_problems.problem import Problem, StoryDraw, Unsuitable, shown
from herdlm.align.synth.word_problems.taught import taught
from herdlm.align.synth.word_problems.things import THINGS

TASK = "word-problems"
SOURCE = "synth: word problems"
BATCH = 200  # problems whose steps are computed in one run of the sandbox
TRIES = 60  # draws until a story has sensible numbers

REFERS = re.compile(r"\b(he|she|they|them|each of them|the others|one of them|some of them|it|that)\b", re.IGNORECASE)

Family = Callable[[StoryDraw, int], Problem]
FAMILIES: dict[Family, tuple[int, int, float]] = {
    chain: (1, 4, 3.0),
    counting.unknown: (1, 2, 1.0),
    counting.change: (1, 1, 1.0),
    counting.compare: (1, 3, 2.0),
    counting.groups: (1, 2, 2.0),
    counting.people: (1, 3, 1.0),
    paying.shop: (1, 4, 2.0),
    measuring.work: (1, 3, 1.0),
    measuring.travel: (1, 3, 0.8),
    measuring.convert: (1, 2, 0.6),
    paying.saving: (1, 3, 0.8),
    measuring.parts: (1, 3, 0.8),
    measuring.field: (1, 3, 0.8),
    measuring.ages: (1, 2, 0.5),
}
"""Kinds of stories: fewest steps, most steps, and how often they are drawn."""


def generate(setting: Setting, options: WordProblemsConfig) -> Iterator[Made]:
    """Problems made by program, then those of the teacher.

    Raises:
        InputError: files of problems are given, but no teacher; or they cannot be read.
    """
    batch: list[tuple[int, Problem]] = []
    for number in range(options.count):
        batch.append((number, _new_problem(setting, options, number)))
        if len(batch) == BATCH:
            yield from _checked(setting, batch)
            batch = []
    yield from _checked(setting, batch)
    if options.problems:
        yield from taught(setting, options)


def _new_problem(setting: Setting, options: WordProblemsConfig, number: int) -> Problem:
    """A problem that was not made before. The number of steps is spread evenly."""
    steps = options.least_steps + number % (options.most_steps - options.least_steps + 1)
    for attempt in range(1000):
        problem = _problem(setting, options, steps, number, attempt)
        if setting.is_new(problem.text):
            return problem
    raise AssertionError("the stories have far more than a thousand forms")


def _problem(setting: Setting, options: WordProblemsConfig, steps: int, number: int, attempt: int) -> Problem:
    random = setting.random("problem", number, attempt)
    fitting = [
        (family, weight)
        for family, (least, most, weight) in FAMILIES.items()
        if least <= steps <= most and (options.fractions or family is not measuring.parts)
    ]
    weights = [weight for _, weight in fitting]
    chosen = fitting[int(random.choice(len(fitting), p=[weight / sum(weights) for weight in weights]))][0]
    for _ in range(TRIES):
        draw = StoryDraw(random, options.largest)
        try:
            problem = chosen(draw, steps)
        except Unsuitable:
            continue
        if len(problem.lines) != steps:
            continue
        if draw.chance(options.distractors):
            _distract(draw, problem)
        return problem
    raise AssertionError(f"{chosen.__name__} finds no numbers for {steps} steps")


def _distract(draw: StoryDraw, problem: Problem) -> None:
    """Put a sentence with a number that is not needed before the question."""
    who, number = draw.person(), draw.upto(2)
    used = problem.text
    things = [thing for thing in THINGS if thing.items not in used]
    one, two = draw.one(things).items, draw.one(things).items
    place = draw.one(("kitchen", "garage", "attic", "shed", "cellar", "office"))
    sentence = draw.one(
        (
            f"{who} also has {draw.n(number)} {one}.",
            f"There are {draw.n(number)} {one} in the {place}, too.",
            f"{who}, who is {draw.n(max(number % 60, 6))} years old, was watching.",
            f"The day before, {who} had counted {draw.n(number)} {two}.",
            f"It was {draw.n(max(number % 30, 5))} degrees outside.",
        )
    )
    # Not before a sentence that speaks of what came before it.
    places = [i for i in range(len(problem.story)) if i == 0 or not REFERS.search(problem.story[i])]
    problem.story.insert(places[-1] if len(places) == 1 or draw.chance(0.7) else draw.one(places[1:]), sentence)
    problem.structure.append("distractor")


def _checked(setting: Setting, batch: list[tuple[int, Problem]]) -> Iterator[Made]:
    """The problems of a batch whose steps and answer the sandbox computes alike."""
    if not batch:
        return
    verdicts = check_worked(setting.sandbox, [(problem.worked, shown(problem.value)) for _, problem in batch])
    for (_, problem), wrong in zip(batch, verdicts, strict=True):
        messages = [records.user(problem.text)]
        made = records.prompt(messages, task=TASK, source=SOURCE, verifier="number", answer=shown(problem.value))
        if wrong:
            yield dropped(made.record | {"worked": problem.worked}, wrong)
            continue
        yield made
        yield records.dialog(
            [*messages, records.assistant(problem.worked)],
            task=TASK,
            source=records.PROGRAM,
            origin=SOURCE,
            verdict="steps and answer computed",
            asked=made.record["id"],
            structure=", ".join(problem.structure),
        )
