"""The content of a run's report, typed: the page is rendered from it, and ``report.json`` holds it.

Rates and shares range from 0 to 1; losses are in nats per token unless their name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["shown", "not shown", "contrary"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Check:
    """A claim, checked against this run's numbers.

    Args:
        figure: a "difference" of two pass rates on the same questions, a "rate", or a "deviation" relative to a
            forecast, which is a single number without an interval (``low`` and ``high`` are None).
        rule: what had to be measured for the claim to be shown.
        says: a sentence with the measurements.
    """

    name: str
    claim: str
    figure: Literal["difference", "rate", "deviation"]
    value: float
    low: float | None
    high: float | None
    verdict: Verdict
    rule: str
    says: str


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What one step of curation kept and dropped; ``reasons`` are (reason, documents, bytes), most frequent first."""

    name: str
    documents_in: int
    documents_dropped: int
    documents_out: int
    bytes_out: int
    reasons: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Language:
    """What curation kept in a language; ``bytes`` of UTF-8 text."""

    code: str
    documents: int
    bytes: int
    words: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """One token set made from the documents that were kept."""

    name: str
    documents: int
    tokens: int
    target_tokens: int
    bytes_per_token: float


@dataclass(frozen=True, slots=True)
class Curation:
    """Raw pages to clean documents to tokens."""

    files: int
    file_bytes: int
    documents_read: int
    documents_kept: int
    bytes_kept: int
    steps: tuple[FunnelStep, ...]
    languages: tuple[Language, ...]
    vocab_size: int
    tokens: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A number logged in training; each point is the mean over the steps since the point before."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pretraining:
    """The pre-training of one model of the herd."""

    model: str
    role: str
    parameters: int
    body_parameters: int
    trained_tokens: int
    steps: int
    validation_loss: float
    bits_per_byte: float
    loss: Curve
    learning_rate: Curve
    gradient_norm: Curve


@dataclass(frozen=True, slots=True)
class Axis:
    """A measure of model size as the forecast's axis: ladder points are (model, size, loss)."""

    name: str
    factor: float
    exponent: float
    ladder: tuple[tuple[str, float, float], ...]
    size: float
    forecast: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The flagship's loss as the ladder forecast it, and as measured."""

    axes: tuple[Axis, ...]
    chosen: str
    measured: float
    came_before: bool

    @property
    def axis(self) -> Axis:
        """The axis the recipe fixed beforehand."""
        return next(axis for axis in self.axes if axis.name == self.chosen)


@dataclass(frozen=True, slots=True)
class Examination:
    """A model's answers to the held-out questions; ``tasks`` are (task, right, asked).

    ``bits_per_byte`` is None in a run without held-out text.
    """

    stage: str
    label: str
    asked: int
    right: int
    pass_rate: Interval
    tasks: tuple[tuple[str, int, int], ...]
    bits_per_byte: float | None


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate of a round decided: the candidate that was promoted, or None; and why. Scores are by model."""

    promoted: str | None
    reason: str
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What went into and came out of one round of post-training. ``edits`` is None where nobody annotates."""

    number: int
    sampled_right: float | None
    pairs: int
    edits: int | None
    kept: int
    cleaned: int | None
    reward_held_out: Interval | None
    reward_train: Interval | None
    held_out_pairs: int
    sft_steps: int
    dpo_steps: int
    gate: GateResult | None


@dataclass(frozen=True, slots=True)
class Drift:
    """How far DPO moved the log-probability (nats) of chosen and rejected answers from where it started.

    ``late`` values are means over the last quarter of the steps.
    """

    label: str
    chosen: Curve
    rejected: Curve
    chosen_late: float
    rejected_late: float


@dataclass(frozen=True, slots=True)
class Quantization:
    """The FP8 model against the BF16 model it was made from; ``kl`` in nats per token.

    ``reward`` is the mean difference of the reward model's scores per prompt, FP8 minus BF16. ``gained`` answers
    became right and ``lost`` answers became wrong.
    """

    original: str
    changed: str
    parameters: int
    parameters_fp8: int
    bytes_before: int
    bytes_after: int
    kl: float
    kl_p99: float
    top1_agreement: float
    tokens: int
    reward: Interval | None
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """A metric of a standard task; ``figures`` are of each model, None where not known. Shares are from 0 to 1."""

    task: str
    metric: str
    items: int
    is_share: bool
    figures: tuple[Interval | None, ...]


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """The finished models on standard tasks; ``comparisons`` are what is shown, and the sentence that says so."""

    models: tuple[str, ...]
    rows: tuple[BenchmarkRow, ...]
    comparisons: tuple[tuple[Literal["better", "worse", "nothing"], str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to a question."""

    label: str
    text: str
    right: bool


@dataclass(frozen=True, slots=True)
class Dialog:
    """One held-out question with the answers of several models."""

    task: str
    prompt: str
    expected: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage took."""

    stage: str
    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact or source file in the lineage; ``made_from`` are the names of other nodes."""

    name: str
    kind: str
    content: str
    made_from: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The origin of the final model: its main line, from the source file on, and all its ancestors."""

    final: str
    line: tuple[str, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """The whole report. What a recipe leaves out is None or empty.

    Args:
        start: the stage that post-training starts from.
        finished: the stage of the finished flagship.
        control: the stage of the rounds' control.
    """

    name: str
    seed: int
    code: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    further_checks: tuple[Check, ...]
    curation: Curation | None
    pretraining: tuple[Pretraining, ...]
    annealing_from: int | None
    forecast: Forecast | None
    examinations: tuple[Examination, ...]
    start: str | None
    finished: str
    rounds: tuple[Round, ...]
    control: str | None
    key_models: tuple[str, ...]
    ablation: tuple[Drift, ...]
    quantization: Quantization | None
    benchmarks: Benchmarks | None
    dialogs: tuple[Dialog, ...]
    times: tuple[StageTime, ...]
    lineage: Lineage
    settings: dict[str, Any]

    def examination(self, stage: str) -> Examination:
        """The examination of a stage's model."""
        return next(found for found in self.examinations if found.stage == stage)
