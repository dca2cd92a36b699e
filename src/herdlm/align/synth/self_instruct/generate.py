"""Makes new tasks in the manner of given ones (Wang et al., arXiv 2212.10560), with answers that agree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.self_instruct.answers import choose
from herdlm.align.synth.self_instruct.tasks import Novelty, listed, read_seeds, wrong_task
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.align.synth.teacher_config import SelfInstructConfig
from herdlm.align.synth.words import words

SOURCE = "synth: self-instruct"
NEW = 3  # tasks that are asked for at once
MOST_EMPTY = 3  # batches in a row without a new task, after which no more are asked for
INVENT = (
    "Below is a numbered list of tasks for an assistant that reads and writes text only. Write {new} more tasks, "
    "numbered {first} to {last}. They should differ from those above and from each other in subject, wording and kind. "
    "Each can be done without files, pictures, the internet or what others said, and contains all that it works on. "
    "Write only the tasks.\n\n{listed}"
)
KIND = (
    "Here is a task.\n\n{task}\n\nIs its answer one of a small set of labels that is fixed beforehand, such as yes "
    "or no, or a class? Reply with one word, yes or no."
)
ANSWER = "{task}\n\nReply with the label only."
YES = re.compile(r"\A\W*yes\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Task:
    """A new task, and whether its answer is a label."""

    text: str
    label: bool

    @property
    def asked(self) -> str:
        """What is asked for."""
        return ANSWER.format(task=self.text) if self.label else self.text

    @property
    def kind(self) -> str:
        """Its task in records."""
        return "classification" if self.label else "generation"


def generate(setting: Setting, options: SelfInstructConfig) -> Iterator[Made]:
    """Prompts with short answers that agree, and dialogs.

    Raises:
        InputError: there is no teacher, or no seed.
    """
    setting.need_teacher("inventing tasks")
    seeds = read_seeds(options.seeds)
    novelty = Novelty(options.alike)
    for seed in seeds:
        novelty.add(seed)
    made: list[str] = []
    batch = empty = 0
    while len(made) < options.count and empty < MOST_EMPTY:
        found: list[str] = []
        for text, wrong in _invented(setting, options, seeds, made, batch=batch, novelty=novelty):
            if wrong:
                yield dropped({"prompt": [records.user(text)]}, wrong)
            elif len(made) + len(found) < options.count:
                found.append(text)
        yield from _answered(setting, options, _sorted(setting, found))
        made += found
        batch, empty = batch + 1, 0 if found else empty + 1
    if len(made) < options.count:
        short = {"tasks": len(made), "count": options.count}
        yield dropped(short, f"no new task in {MOST_EMPTY} rounds: fewer than count were made")


def _invented(
    setting: Setting,
    options: SelfInstructConfig,
    seeds: Sequence[str],
    made: Sequence[str],
    *,
    batch: int,
    novelty: Novelty,
) -> Iterator[tuple[str, str]]:
    """Tasks that the teacher invents, each with what is wrong with it. Earlier ones are among the examples."""
    dialogs = []
    for number in range(options.at_once):
        draw = Draw(setting.random("examples", batch, number))
        own = draw.some(made, min(options.own, options.examples - 1))
        shown = draw.some([*draw.some(seeds, options.examples - len(own)), *own], options.examples)
        text = "\n".join(f"{n}. {' '.join(task.split())}" for n, task in enumerate(shown, 1))
        first = len(shown) + 1
        dialogs.append([records.user(INVENT.format(new=NEW, first=first, last=first + NEW - 1, listed=text))])
    answers = setting.ask(dialogs, "invent", batch, temperature=options.temperature, max_tokens=options.max_tokens)
    for (answer,) in answers:
        tasks = listed(answer.text)
        for place, text in enumerate(tasks):
            # Of a list that was cut off, the last task is not whole.
            wrong = "cut off" if answer.finish != "stop" and place == len(tasks) - 1 else wrong_task(text)
            wrong = wrong or ("" if setting.is_new(text) else REPEATED)
            wrong = wrong or ("" if novelty.is_new(text) else "is like an earlier task")
            if not wrong:
                novelty.add(text)
            yield text, wrong


def _sorted(setting: Setting, tasks: Sequence[str]) -> list[Task]:
    """The tasks, each with whether its answer is a label."""
    said = setting.ask([[records.user(KIND.format(task=text))] for text in tasks], "kind", max_tokens=4)
    return [Task(text, bool(YES.match(answer.text))) for text, (answer,) in zip(tasks, said, strict=True)]


def _answered(setting: Setting, options: SelfInstructConfig, tasks: Sequence[Task]) -> Iterator[Made]:
    """The tasks on whose answers the teacher agrees with itself."""
    name = setting.need_teacher("answering").name
    answers = setting.ask(
        [[records.user(task.asked)] for task in tasks],
        "answer",
        samples=options.samples,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    for task, samples in zip(tasks, answers, strict=True):
        texts = [answer.text.strip() if answer.finish == "stop" else "" for answer in samples]
        chosen = choose(task.text, texts, agree=options.agree, common=options.common)
        wrong = chosen.wrong or ("the label is no short answer" if task.label and not chosen.short else "")
        messages = [records.user(task.asked)]
        if wrong:
            yield dropped({"prompt": messages, "task": task.kind, "answers": texts}, wrong)
            continue
        text = texts[chosen.number]
        if chosen.short:
            yield records.prompt(messages, task=task.kind, source=SOURCE, verifier="text", answer=text)
        yield records.dialog(
            [*messages, records.assistant(text)],
            task=task.kind,
            source=name,
            origin=SOURCE,
            verdict="the answers agree" if chosen.short else "has most in common with the other answers",
            asked=records.prompt_id(messages),
            sample=chosen.number,
            share=round(chosen.share, 4),
            words=len(words(text)),
        )
