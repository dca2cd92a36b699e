"""Draws several answers of models to each of many prompts."""

from __future__ import annotations

import datetime
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from herdlm.align.samples.asking import Asked, answers_to, open_asked
from herdlm.align.samples.options import Part, SampleOptions, parts
from herdlm.align.samples.rows import Sample, SampledRow, prompt_id, read_prompts, write_samples
from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.ledger import Ledger
from herdlm.base.seeds import derive_seed
from herdlm.data.row import Rename
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.local import LocalModel
from herdlm.evaluate.remote import RemoteOptions
from herdlm.evaluate.requests import Answer, AnswerRequest, Question

LEDGER, BEGAN = "answers.jsonl", "began"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Prompts with the answers to them, and counts.

    Attributes:
        counts: ``prompts``, ``answered`` ones, ``samples``, ``tokens``; samples by ``models``, ``temperatures`` and
            ``finish``; ``left_out``: for each model, prompts that it cannot read, by reason; ``own_system``: prompts
            that kept a system prompt of their own.
    """

    rows: list[SampledRow]
    counts: dict[str, Any]


def draw(
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    options: SampleOptions,
    work: Path,
    *,
    engine: EngineOptions | None = None,
    remote: RemoteOptions | None = None,
    quiet: bool = False,
) -> Drawn:
    """Draw ``options.samples`` answers to each prompt, divided among models and temperatures.

    An answer depends on the model, the options, the seed, and the ids and texts of the prompts; not on the number of
    engines, and not on interruptions.

    Args:
        rows: prompts as docs/rounds.md describes them; all their keys are kept.
        models: folders, runs, or addresses of servers, URL or URL#NAME.
        work: a folder that survives interruptions. Called again with it, ``draw`` goes on where it was killed.

    Raises:
        InputError: a model or an option is unusable, two rows have one id, or no model can read any prompt.
        HerdError: a server does not answer, or workers keep dying. Finished answers are kept.
    """
    if not models:
        raise InputError("no model is named", "Name one")
    ids = [prompt_id(row) for row in rows]
    if len(set(ids)) < len(ids):
        raise InputError(f"two prompts have the id {Counter(ids).most_common(1)[0][0]!r}", "Give each its own")
    divided = [parts(id, len(models), options) for id in ids]
    counts: dict[str, Any] = {"prompts": len(rows), "left_out": {}}
    drawn: list[list[Sample]] = [[] for _ in rows]
    with Ledger(work / LEDGER) as ledger:
        began, names = _began(work), set[str]()
        for number, model in enumerate(models):
            with closing(
                open_asked(model, engine or EngineOptions(), remote or RemoteOptions(), options.batch)
            ) as asked:
                name = asked.name if asked.name not in names else model
                names.add(name)
                if isinstance(asked, LocalModel):
                    asked.format.freeze(began)
                asking = _Asking(asked, name, options)
                for place, (row, id, own) in enumerate(zip(rows, ids, divided, strict=True)):
                    asking.add(place, row, id, [part for part in own if part.model == number])
                asking.run(ledger, drawn, quiet=quiet)
                if asking.left_out:
                    counts["left_out"][name] = dict(asking.left_out)
    made = [
        cast(SampledRow, {**row, "id": id, "samples": samples})
        for row, id, samples in zip(rows, ids, drawn, strict=True)
        if samples
    ]
    if not made:
        raise InputError(f"no model can answer any prompt: {counts['left_out']}", "Give shorter prompts")
    return Drawn(made, counts | _counted(made, options))


def sample(
    models: Sequence[str],
    prompts: Sequence[Path],
    out: Path,
    options: SampleOptions,
    *,
    limit: int | None = None,
    rename: Rename | None = None,
    engine: EngineOptions | None = None,
    remote: RemoteOptions | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Draw answers to the prompts of files into a new file; a killed call goes on when it is made again.

    Args:
        limit: this many prompts, which the seed chooses; a larger limit adds to them.

    Returns:
        The counts of :class:`Drawn`, and under ``data`` those of the prompts' rows.

    Raises:
        HerdError: as for :func:`draw`; also a row cannot be read, or ``out`` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists", "Choose a new file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder", "Make it, or choose another file")
    rows, counts = read_prompts(prompts, rename=rename)
    if limit is not None and limit < len(rows):
        ranked = sorted(rows, key=lambda row: derive_seed(options.seed, "limit", row["id"]))
        chosen = {row["id"] for row in ranked[:limit]}
        rows = [row for row in rows if row["id"] in chosen]
    work = out.with_name(f".{out.name}.working")
    drawn = draw(rows, models, options, work, engine=engine, remote=remote, quiet=quiet)
    write_samples(out, drawn.rows)
    shutil.rmtree(work)
    return {**drawn.counts, "data": counts.as_json()}


class _Asking:
    """The requests to one model, and the answers to them."""

    def __init__(self, model: Asked, name: str, options: SampleOptions) -> None:
        self.model, self.name, self.options = model, name, options
        self.left_out: Counter[str] = Counter()
        self._requests: list[AnswerRequest] = []
        self._places: list[tuple[int, float, str]] = []  # row, temperature and system prompt of each request

    def add(self, place: int, row: Mapping[str, Any], id: str, parts: Sequence[Part]) -> None:
        """Ask for parts of the answers to a prompt, or count why this model cannot read it."""
        if not parts:
            return
        messages, system = with_system(row["prompt"], self.options.system(id))
        question = Question(messages=tuple(messages), tools=tuple(row.get("tools") or ()))
        try:
            fits = self.model.fits(question, self.options.max_tokens)
        except InputError as error:
            self.left_out[f"refused by the chat template: {error.what}"] += 1
            return
        if not fits:
            self.left_out["too long for the context"] += 1
            return
        for part in parts:
            seed = derive_seed(self.options.seed, "sample", self.name, id, str(float(part.temperature)))
            self._requests.append(
                AnswerRequest(
                    question,
                    self.options.max_tokens,
                    temperature=float(part.temperature),
                    top_p=self.options.top_p,
                    samples=part.count,
                    seed=seed,
                )
            )
            self._places.append((place, float(part.temperature), system))

    def run(self, ledger: Ledger, drawn: list[list[Sample]], *, quiet: bool) -> None:
        """Add the model's answers to ``drawn``, the answers to each row."""
        found = answers_to(self.model, self._requests, ledger, title=f"sample {self.name}", quiet=quiet)
        for (place, temperature, system), answers in zip(self._places, found, strict=True):
            drawn[place] += [self._sample(answer, temperature, system) for answer in answers]

    def _sample(self, answer: Answer, temperature: float, system: str) -> Sample:
        made: Sample = {
            "answer": _plain(answer.whole),
            "model": self.name,
            "temperature": temperature,
            "finish": answer.finish,
            "tokens": answer.tokens,
            "logprob": answer.logprob,
        }
        return {**made, "system": system} if system else made


def with_system(messages: Sequence[Any], system: str) -> tuple[list[Any], str]:
    """A prompt behind a system prompt, and that system prompt; a prompt that has one of its own keeps it."""
    if not system or (messages and messages[0]["role"] == "system"):
        return list(messages), ""
    return [{"role": "system", "content": system}, *messages], system


def _plain(text: str) -> str:
    """A text that files can hold: without halves of surrogate pairs and NUL characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _began(work: Path) -> datetime.datetime:
    """When the work began; templates that write the date see it however often the work is taken up again."""
    path = work / BEGAN
    if not path.is_file():
        write_text_durably(path, datetime.datetime.now().isoformat() + "\n")
    return datetime.datetime.fromisoformat(path.read_text(encoding="utf-8").strip())


def _counted(rows: Sequence[SampledRow], options: SampleOptions) -> dict[str, Any]:
    samples = [sample for row in rows for sample in row["samples"]]
    own = sum(row["prompt"][0]["role"] == "system" for row in rows) if options.systems else 0
    by = {
        name: dict(sorted(Counter(str(sample[key]) for sample in samples).items()))  # type: ignore[literal-required]
        for name, key in (("models", "model"), ("temperatures", "temperature"), ("finish", "finish"))
    }
    return {
        "answered": len(rows),
        "samples": len(samples),
        "tokens": sum(sample["tokens"] for sample in samples),
        "own_system": own,
        **by,
    }
