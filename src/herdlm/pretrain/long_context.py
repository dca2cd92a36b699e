"""Trains in stages of growing row length, with a gate at the end of each (report, section 3.4.2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import DamagedError, HerdError
from herdlm.evaluate.needle import Retrieval
from herdlm.model.config import RopeScaling
from herdlm.parallel.processes import from_first, is_first, meet
from herdlm.pretrain.config import Phase, PretrainConfig, timeline


@dataclass(frozen=True, slots=True)
class StageCallbacks:
    """The operations on a model that :func:`train_in_stages` calls, on every process and at the same steps.

    If processes measure different values, those of the first one count.

    Attributes:
        train_until: trains from the last checkpoint up to a number of finished steps and saves a checkpoint there. Does
            nothing if the last checkpoint is at or past that step.
        set_rope_scaling: sets the model's RoPE scaling.
        short_loss: measures the loss in nats per token on held-out rows of a length.
        find_needles: measures retrieval in haystacks of a length.
        save: writes the current model into a new folder.
    """

    train_until: Callable[[int], None]
    set_rope_scaling: Callable[[RopeScaling], None]
    short_loss: Callable[[int], float]
    find_needles: Callable[[int], Retrieval]
    save: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a model achieved at the end of a long-context stage, and what the gate requires.

    Attributes:
        short_loss: loss on rows of the length before all stages; at most ``short_loss_allowed``.
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
        """The requirements that the model does not meet."""
        failures = []
        if not self.short_loss <= self.short_loss_allowed:  # so that NaN fails
            failures.append(
                f"its loss on rows of {self.short_seq_len:,} tokens is {self.short_loss:.4f}, above the allowed "
                f"{self.short_loss_allowed:.4f}"
            )
        if not self.needle_rate >= self.needle_rate_required:
            failures.append(
                f"it finds {self.needle_rate:.1%} of needles in {self.seq_len:,} tokens, below the required "
                f"{self.needle_rate_required:.1%}"
            )
        return failures


def train_in_stages(config: PretrainConfig, callbacks: StageCallbacks, work: Path) -> list[GateResult]:
    """Train all steps of ``config``, and check the gate at the end of each long-context stage.

    Gates that passed are recorded in ``work/gates.json``, so that a resumed run does not measure them again. A gate
    that failed is measured again, because the recipe may have changed.

    Only the first process reads and writes these files; all processes take the same decision.

    Raises:
        HerdError: on every process, if a gate failed. The measurements and the model are in ``work/failed-gate-N``.
        DamagedError: ``work/gates.json`` is damaged.
    """
    phases = timeline(config)
    stages = [phase for phase in phases if phase.kind == "long-context"]
    if not stages:
        callbacks.train_until(config.steps)
        return []
    last_main = phases[phases.index(stages[0]) - 1]
    path = work / "gates.json"
    before, passed = from_first(lambda: _read(path))
    callbacks.train_until(last_main.end_step)
    if before is None:
        measured = callbacks.short_loss(last_main.seq_len)
        before = from_first(lambda: measured)
        _write(path, before, passed)
    for stage in stages:
        if stage.rope_scaling is not None:
            callbacks.set_rope_scaling(stage.rope_scaling)
        callbacks.train_until(stage.end_step)
        if stage.stage <= len(passed):
            continue
        result = _measure(config, callbacks, stage, last_main.seq_len, before)
        if result.failures:
            raise _failed(result, callbacks, work / f"failed-gate-{stage.stage}")
        passed.append(result)
        _write(path, before, passed)
    callbacks.train_until(config.steps)
    return passed


def _measure(config: PretrainConfig, callbacks: StageCallbacks, stage: Phase, short: int, before: float) -> GateResult:
    retrieval = callbacks.find_needles(stage.seq_len)
    result = GateResult(
        stage=stage.stage,
        step=stage.end_step,
        seq_len=stage.seq_len,
        short_seq_len=short,
        short_loss=callbacks.short_loss(short),
        short_loss_allowed=before + config.gate.short_loss_margin,
        needle_rate=retrieval.rate.value,
        needle_rate_required=config.gate.needle_rate,
        needles=_plain(asdict(retrieval)),
    )
    return from_first(lambda: result)


def _failed(result: GateResult, callbacks: StageCallbacks, folder: Path) -> HerdError:
    """Save the measurements and the model; returns the error to raise."""
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)  # from an earlier attempt
    meet()
    callbacks.save(folder)
    if is_first():
        write_text_durably(folder / "gate.json", json.dumps(asdict(result), indent=2) + "\n")
    meet()  # the first process to raise ends the others, so all files are written before
    return HerdError(
        f"the gate of long-context stage {result.stage} at step {result.step:,} failed: "
        f"{' and '.join(result.failures)}; the measurements and the model are in {folder}",
        "Give the stage more tokens in pretrain.long_context, or relax pretrain.gate, and run again",
    )


def _plain(value: Any) -> Any:
    """``value`` as JSON returns it, with keys that are strings."""
    return json.loads(json.dumps(value))


def _write(path: Path, before: float, passed: list[GateResult]) -> None:
    if not is_first():
        return
    gates = {"short_loss_before": before, "passed": [asdict(result) for result in passed]}
    write_text_durably(path, json.dumps(gates, indent=2) + "\n")


def _read(path: Path) -> tuple[float | None, list[GateResult]]:
    """The loss on short rows before all stages, and the gates that passed."""
    if not path.exists():
        return None, []
    try:
        gates = json.loads(path.read_text(encoding="utf-8"))
        return float(gates["short_loss_before"]), [GateResult(**result) for result in gates["passed"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {error}", "Delete it; the gates will be measured again") from error
