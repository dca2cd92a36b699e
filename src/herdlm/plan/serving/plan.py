"""The engines that serve a model at a given traffic: the fewest GPUs within the goals, in BF16 and in FP8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import ceil, exp, hypot
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Machine
from herdlm.plan.job import Shape
from herdlm.plan.serving.load import MOST_SEQUENCES, Goals, Steady, Traffic, at_once, most_requests, saturated, steady
from herdlm.plan.serving.simulate import simulate
from herdlm.plan.serving.speed import BF16, Engine, Quantized, ServingConstants

NEW_ARCHITECTURE = 0.10  # half-width that another architecture than the rows' adds, as for training
PERCENTILES = (50, 90, 99)
LONGEST_SIMULATION = 4_000_000  # steps of decoding


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be served: a model on a machine, its traffic, what users wait at most, and how it is quantized.

    Attributes:
        most: sequences that an engine decodes at a time.
        quantized, cache_bytes: in FP8; see ``Engine``.
    """

    shape: Shape
    machine: Machine
    traffic: Traffic
    goals: Goals = field(default_factory=Goals)
    most: int = MOST_SEQUENCES
    quantized: Quantized = "feed-forward"
    cache_bytes: int = BF16


def width_of(engine: Engine, *, alike: bool = False) -> float:
    """Half-width of the 80% interval of the logarithm of times.

    The rows of the fit are of one GPU, in FP8, at full load. ``alike`` is for a measurement of that kind; whatever else
    differs adds the width of the time model for what its own fit has not seen.
    """
    width = engine.constants.interval["seen" if alike else "other"]
    if not alike or engine.gpus > 1 or engine.quantized == "no":
        width = hypot(width, engine.training.interval["other"])
    if engine.machine.gpu.architecture != "hopper":
        width = hypot(width, NEW_ARCHITECTURE)
    return width


def plan_serving(
    demand: Demand, constants: ServingConstants, training: Constants, precisions: tuple[str, ...] = ("bf16", "fp8")
) -> dict[str, Any]:
    """The best plan in each precision, as JSON, and the other engines that would do.

    Raises:
        InputError: in none of the precisions an engine can serve a request within the goals.
    """
    plans = []
    for precision in precisions:
        found = [_sized(engine, demand) for engine in engines(demand, constants, training, precision)]
        usable = sorted(filter(None, found), key=lambda each: (each["gpus"]["value"], each["answer_s"]["value"]))
        if usable:
            others = [{name: each[name] for name in ("tp", "pp", "engines", "gpus")} for each in usable[1:]]
            best = {"precision": precision, **usable[0], "other_engines": others}
            plans.append({**best, **_percentiles(demand, constants, training, best)})
        else:
            plans.append({"precision": precision, "problem": _problem(demand, constants, training, precision)})
    if all("problem" in plan for plan in plans):
        raise InputError("; ".join(f"{plan['precision']}: {plan['problem']}" for plan in plans), "Change the demand")
    return {
        "gpu": demand.machine.gpu.name,
        "traffic": asdict(demand.traffic),
        "goals": asdict(demand.goals),
        "quantized": demand.quantized,
        "plans": plans,
    }


def engines(demand: Demand, constants: ServingConstants, training: Constants, precision: str) -> Iterator[Engine]:
    """Engines on which the model may be: tensor parallel inside a node, pipeline stages in it or across nodes."""
    node, shape = demand.machine.gpus_per_node, demand.shape
    fp8 = precision == "fp8"
    for tp in (1 << power for power in range(node.bit_length())):
        for pp in (1, 2, 4, 8):
            inside = tp * pp <= node
            if tp > node or shape.heads % tp or pp > shape.layers or not (inside or tp == node):
                continue
            engine = Engine(
                shape,
                demand.machine,
                constants,
                training,
                tp,
                pp,
                demand.quantized if fp8 else "no",
                demand.cache_bytes if fp8 else BF16,
            )
            if engine.most_sequences(demand.traffic.prompt + demand.traffic.answer) >= 1:
                yield engine


def copies_for(engine: Engine, demand: Demand) -> int | None:
    """Copies of an engine that take the traffic within the goals; None if no number does."""
    traffic = demand.traffic
    rate = most_requests(engine, traffic.prompt, traffic.answer, demand.goals, demand.most)
    return max(ceil(traffic.requests_per_s / rate * (1 - 1e-9)), 1) if rate > 0 else None


def _sized(engine: Engine, demand: Demand) -> dict[str, Any] | None:
    copies = copies_for(engine, demand)
    if copies is None:
        return None
    width, traffic = width_of(engine), demand.traffic
    fast, slow = replace(engine, slower=exp(-width)), replace(engine, slower=exp(width))
    states = [_state(each, copies, demand) for each in (engine, fast, slow)]
    usual = states[0]
    assert usual is not None
    numbers = [copies, copies_for(fast, demand), copies_for(slow, demand)]
    gpus = [None if number is None else number * engine.gpus for number in numbers]
    dollars = engine.machine.gpu.dollars_per_hour * copies * engine.gpus
    capacity = saturated(engine, traffic.prompt, traffic.answer, demand.most) * copies
    answered = [
        None if s is None else s.first_token + (traffic.answer - 1) * s.each_token for s in (states[0], *states[1:])
    ]
    return {
        "tp": engine.tp,
        "pp": engine.pp,
        "engines": copies,
        "gpus": _three(gpus),
        "first_token_s": _three([None if s is None else s.first_token for s in states]),
        "each_token_s": _three([None if s is None else s.each_token for s in states]),
        "answer_s": _three(answered),
        "output_tokens_per_s": traffic.requests_per_s * traffic.answer,
        "most_output_tokens_per_s": _three([capacity, capacity * exp(-width), capacity * exp(width)]),
        "sequences_of_an_engine": usual.sequences,
        "most_sequences_of_an_engine": at_once(engine, traffic.prompt, traffic.answer, demand.most),
        "reading_share": usual.reading,
        "weights_gib_per_gpu": engine.weight_bytes / 2**30,
        "cache_gib_per_gpu": usual.sequences * (traffic.prompt + traffic.answer) * engine.cache_per_token / 2**30,
        "dollars_per_hour": dollars,
        "dollars_per_million_output_tokens": dollars / 3600 / (traffic.requests_per_s * traffic.answer) * 1e6,
    }


def _state(engine: Engine, copies: int, demand: Demand) -> Steady | None:
    traffic = demand.traffic
    return steady(engine, traffic.requests_per_s / copies, traffic.prompt, traffic.answer, demand.most)


def _three(values: list[Any]) -> dict[str, Any]:
    """A value with its interval; None where requests pile up."""
    return dict(zip(("value", "low", "high"), values, strict=True))


def _percentiles(
    demand: Demand, constants: ServingConstants, training: Constants, best: dict[str, Any]
) -> dict[str, Any]:
    """Percentiles of latency of the chosen engine, from a simulation."""
    found = next(
        engine
        for engine in engines(demand, constants, training, best["precision"])
        if (engine.tp, engine.pp) == (best["tp"], best["pp"])
    )
    traffic = demand.traffic
    lengths = (round(traffic.prompt), round(traffic.answer))
    requests = int(np.clip(LONGEST_SIMULATION / traffic.answer, 200, 1500))
    rate = traffic.requests_per_s / best["engines"]
    seen = simulate(found, rate, lengths, requests=requests, most=demand.most)
    named = {"first_token_s": seen.first_token, "each_token_s": seen.each_token}
    return {
        "percentiles": {
            name: {f"p{place}": float(np.percentile(values, place)) for place in PERCENTILES}
            for name, values in named.items()
        }
    }


def _problem(demand: Demand, constants: ServingConstants, training: Constants, precision: str) -> str:
    if not any(engines(demand, constants, training, precision)):
        return "not one request fits the memory of any engine"
    return "no engine is as fast as the goals ask, even with one request at a time"
