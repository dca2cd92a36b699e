"""What a cluster trains in some days: model, tokens, layout, expected loss and scores, price and risk.

Compute depends on the layout's speed, which depends on the model, which depends on compute: the three are repeated
until they agree. Speed, memory, price and failures are the planner's (docs/planner.md), sizes and losses those of the
points (docs/scaling.md). Without points the report's constants set the tokens, and no loss is forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.plan.constants import read_constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Job, Shape
from herdlm.plan.layouts import Question, jobs
from herdlm.plan.money import Figure, Rates
from herdlm.plan.predict import Prediction, predict
from herdlm.plan.reliability.checkpoints import costs
from herdlm.plan.reliability.failures import read_failures
from herdlm.plan.reliability.plan import Operations, forecast
from herdlm.plan.run_forecast import forecast_run
from herdlm.plan.stacks import stack_named
from herdlm.plan.step_time import step_time
from herdlm.plan.training_memory import memory_gib_per_gpu
from herdlm.scaling.benchmarks import Task, forecast_task
from herdlm.scaling.extrapolate import forecast as forecast_loss
from herdlm.scaling.fit import Laws
from herdlm.scaling.intervals import figure, rounded
from herdlm.scaling.points import FLOPS_PER_PARAMETER_TOKEN
from herdlm.scaling.shapes import shape_of_size

LEVEL = 0.8
REPORT = (0.299, 0.537)  # Llama 3 report, figure 3: tokens = 0.299 C^0.537
FIRST_MFU = 0.4
ROUNDS = 3
DAY = 86_400.0
BATCHES = ((1e10, 2**20), (1e11, 2**22), (np.inf, 2**24))  # tokens of a step by parameters: 1M, 4M, 16M


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines for some days.

    Attributes:
        gpu: their name in the hardware files.
        tokens_per_step: None for 1, 4 or 16 million by model size.
    """

    machine: Machine
    gpu: str
    gpus: int
    days: float
    seq_len: int = 8192
    tokens_per_step: int | None = None

    def __post_init__(self) -> None:
        if self.gpus < 1 or not 0 < self.days <= 3650:
            raise InputError(f"{self.gpus} GPUs for {self.days:g} days", "Give 1 GPU or more, and 3,650 days or fewer")


def plan_budget(
    cluster: Cluster,
    *,
    laws: Laws | None = None,
    tasks: Sequence[Task] = (),
    rates: Rates,
    draws: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """The best use of the cluster's days by the laws; docs/scaling.md lists the keys.

    Raises:
        InputError: no layout fits, or failures leave no time to train.
    """
    effective = _effective(cluster, 1e9, seed)
    peak = cluster.machine.gpu.peak("bf16")
    flops = cluster.gpus * peak * FIRST_MFU * cluster.days * DAY * effective["value"]
    shape: Shape | None = None
    for _ in range(ROUNDS):
        params, _, _ = _optimum(laws, flops)
        found = shape_of_size(params)
        if found == shape:
            break
        shape = found
        prediction = _fastest(cluster, shape)
        effective = _effective(cluster, shape.parameters, seed, prediction.job.gpus)
        trained = _tokens(cluster, prediction, effective)
        flops = FLOPS_PER_PARAMETER_TOKEN * shape.parameters * trained.value
    assert shape is not None
    return _described(cluster, shape, prediction, trained, laws=laws, tasks=tasks, rates=rates, draws=draws, seed=seed)


def _optimum(laws: Laws | None, flops: float) -> tuple[float, float, str]:
    """Parameters and tokens for a compute, and what says so."""
    if laws is None:
        tokens = REPORT[0] * flops ** REPORT[1]
        return flops / FLOPS_PER_PARAMETER_TOKEN / tokens, tokens, "the constants of the Llama 3 report"
    found = forecast_loss(laws, flops)
    return found["params"]["value"], found["tokens"]["value"], f"{found['chosen']} fit of {laws.points.source}"


def _fastest(cluster: Cluster, shape: Shape) -> Prediction:
    """The fastest layout that fits, with one row in a micro-batch and no context parallelism."""
    constants, stack = read_constants(), stack_named(None)
    batch = cluster.tokens_per_step or next(tokens for bound, tokens in BATCHES if shape.parameters < bound)
    given: dict[str, Any] = {"micro_batch": 1} | ({"cp": 1} if cluster.seq_len <= 16_384 else {})
    question = Question(
        shape,
        cluster.gpus,
        cluster.gpu,
        cluster.seq_len,
        batch,
        node=min(cluster.machine.gpus_per_node, cluster.gpus),
        given=given,
    )

    timed = [
        (step_time(job, cluster.machine, constants, stack).seconds, n, job) for n, job in enumerate(_jobs(question))
    ]
    for _, _, job in sorted(timed):
        if memory_gib_per_gpu(job)["sum"] <= cluster.machine.gpu.memory_gib:
            return predict(job, cluster.machine, constants, stack)
    raise InputError(
        f"no layout of {cluster.gpus} GPUs holds a model of {shape.parameters:.3g} parameters",
        "Take more GPUs, GPUs with more memory, or fewer days",
    )


def _jobs(question: Question) -> list[Job]:
    """Layouts that use nearly all GPUs; of fewer if nothing else divides."""
    for share in (0.9, 0.5, 0.0):
        if found := list(jobs(question, max(int(share * question.gpus), 1))):
            return found
    return []


def _effective(cluster: Cluster, params: float, seed: int, gpus: int | None = None) -> dict[str, Any]:
    """The share of the days that is training, with its interval."""
    checkpoints = costs(int(params), gpus or cluster.gpus)
    found = forecast(
        read_failures(None),
        gpus or cluster.gpus,
        checkpoints,
        Operations(),
        gpus_per_host=cluster.machine.gpus_per_node,
        elapsed_days=cluster.days,
        seed=seed,
    )
    effective: dict[str, Any] = found["effective"]
    if effective["value"] <= 0:
        raise InputError("failures leave no time to train", "Take fewer GPUs, or more days")
    return effective


def _tokens(cluster: Cluster, prediction: Prediction, effective: dict[str, Any]) -> Figure:
    """Tokens that the days train, with the intervals of speed and failures."""
    rate = prediction.as_json()["tokens_per_s_per_gpu"]
    speed = Figure(rate["value"], rate["low"], rate["high"])
    share = Figure(effective["value"], effective["low"], effective["high"])
    return speed.times(prediction.job.gpus * cluster.days * DAY, share)


def _described(
    cluster: Cluster,
    shape: Shape,
    prediction: Prediction,
    trained: Figure,
    *,
    laws: Laws | None,
    tasks: Sequence[Task],
    rates: Rates,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    flops = FLOPS_PER_PARAMETER_TOKEN * shape.parameters * trained.value
    params, tokens, source = _optimum(laws, flops)
    step = prediction.as_json()
    low, high = step["intervals"]["step_seconds"]
    run = forecast_run(
        tokens=trained.value,
        tokens_per_step=prediction.job.tokens_per_step,
        step_seconds=Figure(step["step_seconds"], low, high),
        gpus=prediction.job.gpus,
        gpus_per_host=cluster.machine.gpus_per_node,
        failures=read_failures(None),
        checkpoints=costs(shape.parameters, prediction.job.gpus),
        operations=Operations(),
        rates=rates,
        seed=seed,
    )
    scores = [forecast_task(task, flops, draws=draws, level=LEVEL, seed=seed) for task in tasks]
    result = {
        "gpus": cluster.gpus,
        "gpu": cluster.machine.gpu.name,
        "days": cluster.days,
        "level": LEVEL,
        "flops": {
            side: FLOPS_PER_PARAMETER_TOKEN * shape.parameters * getattr(trained, side) for side in Figure._fields
        },
        "model": {"parameters": shape.parameters, **asdict(shape)},
        "tokens": trained.as_json(),
        "optimum": {"params": params, "tokens": tokens, "source": source},
        "step": step,
        "loss": None if laws is None else _loss(laws, shape, trained, seed),
        "scores": scores,
        "price": {key: run[key] for key in ("dollars", "gpu_hours", "megawatt_hours", "dollars_per_gpu_hour")},
        "risk": run["reliability"],
    }
    return result | {"warnings": _warnings(cluster, laws, result)}


def _loss(laws: Laws, shape: Shape, trained: Figure, seed: int) -> dict[str, Any]:
    """The loss of this very model: uncertain in the law, in single trainings, and in how many tokens the days give."""
    flops = FLOPS_PER_PARAMETER_TOKEN * shape.parameters * trained.value
    if laws.surface is None:
        found: dict[str, Any] = forecast_loss(laws, flops, seed=seed)["loss"]
        return found
    fit = laws.surface
    rng = np.random.default_rng(seed)
    sides = np.log([trained.value / trained.low, trained.high / trained.value]) / 1.2816  # of an 80% interval
    normal = rng.normal(size=len(fit.draws.E))
    tokens = trained.value * np.exp(np.where(normal < 0, sides[0], sides[1]) * normal)
    single = rng.choice(fit.residuals[fit.kept], len(normal))
    losses = fit.draws.loss(shape.parameters, tokens) * np.exp(single - np.median(fit.residuals[fit.kept]))
    return figure(fit.best.loss(shape.parameters, trained.value), losses, LEVEL)


def _warnings(cluster: Cluster, laws: Laws | None, result: dict[str, Any]) -> list[str]:
    told = []
    if laws is None:
        told.append("No points are given: tokens follow the Llama 3 report's constants, and no loss is forecast.")
    else:
        ahead = np.log10(result["flops"]["value"] / laws.points.flops.max())
        if ahead > 2:
            told.append(f"The run lies {ahead:.1f} decades of compute beyond the largest point.")
    if (used := result["step"]["gpus"]) < cluster.gpus:
        told.append(f"The layout uses {used} of {cluster.gpus} GPUs: the others stay free.")
    ratio = rounded(result["tokens"]["value"] / result["optimum"]["tokens"])
    if ratio is not None and not 0.8 < ratio < 1.25:
        told.append(f"The model gets {ratio:.2f} times the optimal tokens of its compute.")
    if not result["scores"]:
        told.append("No benchmarks are given, so no scores are forecast: give --benchmarks.")
    return [*told, *(line for score in result["scores"] for line in score["warnings"])]
