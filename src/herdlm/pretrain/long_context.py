"""A pre-training run whose rows grow longer in stages, with a gate at the end of each (report, section 3.4.2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herdlm.base.artefact import write_text_durably
from herdlm.base.errors import DamagedError, HerdError
from herdlm.evaluate.needle import Retrieval
from herdlm.model.config import RopeScaling
from herdlm.parallel.processes import from_first, is_first, meet
from herdlm.pretrain.config import Phase, PretrainConfig, timeline


@dataclass(frozen=True, slots=True)
class Run:
    """What a run in stages is made of; each is called by every process of the run, at the same steps.

    What the first process has measured counts for all of them.

    Attributes:
        train_until: trains from the last checkpoint to a number of finished steps and leaves a checkpoint there, so
            that the next call goes on from it. Does nothing where the last checkpoint is further on.
        set_rope_scaling: gives the model a RoPE scaling.
        short_loss: nats per token on held-out rows of a length.
        find_needles: in haystacks of a length.
        save: the model as it stands, into a new folder.
    """

    train_until: Callable[[int], None]
    set_rope_scaling: Callable[[RopeScaling], None]
    short_loss: Callable[[int], float]
    find_needles: Callable[[int], Retrieval]
    save: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a model showed at a stage's end, and what it had to show.

    Attributes:
        short_loss: on rows of the length before all stages; it may be ``short_loss_allowed`` at most.
    """

    stage: int
    step: int
    seq_len: int
    short_seq_len: int
    short_loss: float
    short_loss_allowed: float
    needle_rate: float
    needle_rate_required: float
    needles: dict[str, Any]

    @property
    def failures(self) -> list[str]:
        """What the model fell short of."""
        found = []
        if not self.short_loss <= self.short_loss_allowed:  # so that NaN fails
            found.append(
                f"its loss on rows of {self.short_seq_len:,} tokens is {self.short_loss:.4f}, "
                f"{self.short_loss_allowed:.4f} is allowed"
            )
        if not self.needle_rate >= self.needle_rate_required:
            found.append(
                f"it finds {self.needle_rate:.1%} of needles in {self.seq_len:,} tokens, "
                f"{self.needle_rate_required:.1%} are required"
            )
        return found


def train_in_stages(config: PretrainConfig, run: Run, work: Path) -> list[Evidence]:
    """Train the whole course of ``config``; without long-context stages that is one call.

    What gates have seen is kept in ``work/gates.json``: a run that was cut off does not measure again what has passed.
    A gate that failed is measured anew, since its recipe may have changed.

    On many processes the first one alone reads and writes these files, and all come to the same decision.

    Raises:
        HerdError: on every process, a gate failed. Its evidence and the model as it stood are in
            ``work/failed-gate-N``.
        DamagedError: ``work/gates.json`` is not what was written.
    """
    phases = timeline(config)
    stages = [phase for phase in phases if phase.kind == "long-context"]
    if not stages:
        run.train_until(config.steps)
        return []
    last_main = phases[phases.index(stages[0]) - 1]
    path = work / "gates.json"
    before, passed = from_first(lambda: _read(path))
    run.train_until(last_main.end_step)
    if before is None:
        measured = run.short_loss(last_main.seq_len)
        before = from_first(lambda: measured)
        _write(path, before, passed)
    for stage in stages:
        if stage.rope_scaling is not None:
            run.set_rope_scaling(stage.rope_scaling)
        run.train_until(stage.end_step)
        if stage.stage <= len(passed):
            continue
        evidence = _measure(config, run, stage, last_main.seq_len, before)
        if evidence.failures:
            raise _failed(evidence, run, work / f"failed-gate-{stage.stage}")
        passed.append(evidence)
        _write(path, before, passed)
    run.train_until(config.steps)
    return passed


def _measure(config: PretrainConfig, run: Run, stage: Phase, short: int, before: float) -> Evidence:
    found = run.find_needles(stage.seq_len)
    evidence = Evidence(
        stage=stage.stage,
        step=stage.end_step,
        seq_len=stage.seq_len,
        short_seq_len=short,
        short_loss=run.short_loss(short),
        short_loss_allowed=before + config.gate.short_loss_margin,
        needle_rate=found.rate.value,
        needle_rate_required=config.gate.needle_rate,
        needles=_plain(asdict(found)),
    )
    return from_first(lambda: evidence)


def _failed(evidence: Evidence, run: Run, folder: Path) -> HerdError:
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier try
    meet()
    run.save(folder)
    if is_first():
        write_text_durably(folder / "gate.json", json.dumps(asdict(evidence), indent=2) + "\n")
    meet()  # a process that ends with an error ends the others
    return HerdError(
        f"long-context stage {evidence.stage} ends at step {evidence.step:,}, but {' and '.join(evidence.failures)}: "
        f"the evidence and the model are in {folder}",
        "Give the stage more tokens in pretrain.long_context, or widen pretrain.gate, and start again",
    )


def _plain(value: Any) -> Any:
    """As it comes back from JSON, whose keys are strings."""
    return json.loads(json.dumps(value))


def _write(path: Path, before: float, passed: list[Evidence]) -> None:
    if not is_first():
        return
    told = {"short_loss_before": before, "passed": [asdict(evidence) for evidence in passed]}
    write_text_durably(path, json.dumps(told, indent=2) + "\n")


def _read(path: Path) -> tuple[float | None, list[Evidence]]:
    if not path.exists():
        return None, []
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return float(told["short_loss_before"]), [Evidence(**evidence) for evidence in told["passed"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is not what was written: {error}", "Delete it: the gates are measured anew"
        ) from error
