"""Judges samples by verifiers, reward models and models that judge, beside each answer."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from herdlm.align.samples.asking import Asked, open_asked
from herdlm.align.samples.model_says import Said, compare, mark
from herdlm.align.samples.rewards import reward
from herdlm.align.samples.rows import SampledRow, read_samples, write_samples
from herdlm.align.samples.rubric import BUILT_IN, Rubric, load_rubric
from herdlm.align.samples.summary import summarize
from herdlm.align.samples.verify import VerifyOptions, verify
from herdlm.base.errors import InputError
from herdlm.base.ledger import Ledger
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.intervals import pass_rate
from herdlm.evaluate.remote import RemoteOptions

LEDGER = "judged.jsonl"
KINDS = ("verifier", "reward", "model", "rubric")
FORMS = "Write verifier, verifier:NAME, reward:FOLDER, model:FOLDER_OR_URL or rubric:FILE"


@dataclass(frozen=True, slots=True)
class By:
    """One judge: its kind, and the verifier, folder, address or file that it is."""

    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How samples are judged.

    Attributes:
        verify: see :class:`herdlm.align.samples.verify.VerifyOptions`; its name is that of ``verifier:NAME``.
        judge: the model that marks by a rubric's file.
        pairwise: the model compares answers in pairs, rather than giving points.
        meets: answers that each is compared with, after itself in a drawn order.
        max_tokens: of what a model says.
        batch: as in :class:`herdlm.align.samples.options.SampleOptions`.
    """

    verify: VerifyOptions = field(default_factory=VerifyOptions)
    judge: str | None = None
    pairwise: bool = False
    meets: int = 1
    max_tokens: int = 512
    seed: int = 0
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Samples with verdicts, rewards and marks, and what they come to."""

    rows: list[SampledRow]
    summary: dict[str, Any]


def parse_by(given: Sequence[str]) -> list[By]:
    """Judges from ``verifier``, ``reward:FOLDER`` and the like.

    Raises:
        InputError: one has another form, or two would write the same key.
    """
    found = []
    for text in given:
        kind, _, what = text.partition(":")
        if kind not in KINDS or not (what or kind == "verifier"):
            raise InputError(f"--by {text} names no judge", FORMS)
        found.append(By(kind, what))
    for names in (("verifier",), ("reward",), ("model", "rubric")):
        if sum(by.kind in names for by in found) > 1:
            raise InputError(f"two judges would write the same key: --by {' and '.join(names)}", "Judge one by one")
    if not found:
        raise InputError("no judge is named", FORMS)
    return found


def judge_rows(
    rows: Sequence[SampledRow],
    by: Sequence[By],
    options: JudgeOptions,
    work: Path,
    *,
    where: str = "samples",
    engine: EngineOptions | None = None,
    remote: RemoteOptions | None = None,
    quiet: bool = False,
) -> Judged:
    """Judge samples by each of ``by``; what an earlier judge of the same kind wrote is replaced.

    Args:
        work: a folder that survives interruptions: what a model said is not asked again.
        where: names the rows in errors.

    Raises:
        InputError: a judge is unusable, or a row lacks what its verifier needs.
    """
    rubrics = [load_rubric(Path(each.what)) if each.kind == "rubric" else BUILT_IN for each in by]
    if any(each.kind == "rubric" for each in by) != (options.judge is not None):
        raise InputError("a rubric's file and --judge go together", "Give both, or --by model:FOLDER_OR_URL")
    judged, notes = copy.deepcopy(list(rows)), dict[str, Any]()
    engine = engine or EngineOptions()
    with Ledger(work / LEDGER) as ledger:
        for each, rubric in zip(by, rubrics, strict=True):
            if each.kind == "verifier":
                named = replace(options.verify, name=each.what or None)
                notes["without_verifier"] = verify(judged, named, where=where, quiet=quiet)
            elif each.kind == "reward":
                notes["too_long_for_reward"] = reward(
                    judged, Path(each.what), ledger, device=engine.device, quiet=quiet
                )
            else:
                name = options.judge if each.kind == "rubric" else each.what
                assert name is not None, "refused before"
                with closing(open_asked(name, engine, remote or RemoteOptions(), options.batch)) as model:
                    said = _said(judged, model, rubric, options, ledger, quiet=quiet)
                notes["asked"] = asdict(said)
                notes["agreement"] = pass_rate([n < said.agree for n in range(said.both)]).to_json()
    return Judged(judged, {**summarize(judged), **notes})


def judge_samples(
    path: Path,
    by: Sequence[By],
    out: Path,
    options: JudgeOptions,
    *,
    engine: EngineOptions | None = None,
    remote: RemoteOptions | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judge a file of samples into a new one, and return what it comes to; see :func:`judge_rows`.

    Raises:
        HerdError: as for :func:`judge_rows`; also the file cannot be read, or ``out`` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists", "Choose a new file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder", "Make it, or choose another file")
    work = out.with_name(f".{out.name}.working")
    judged = judge_rows(
        read_samples(path), by, options, work, where=str(path), engine=engine, remote=remote, quiet=quiet
    )
    write_samples(out, judged.rows)
    shutil.rmtree(work)
    return judged.summary


def _said(
    rows: list[SampledRow], model: Asked, rubric: Rubric, options: JudgeOptions, ledger: Ledger, *, quiet: bool
) -> Said:
    most = options.max_tokens
    if options.pairwise:
        return compare(
            rows, model, rubric, ledger, meets=options.meets, seed=options.seed, max_tokens=most, quiet=quiet
        )
    return mark(rows, model, rubric, ledger, max_tokens=most, quiet=quiet)
