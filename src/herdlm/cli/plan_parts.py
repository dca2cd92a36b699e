"""Parts of ``herdlm plan`` beside a training step: a whole run with failures and price, serving, policy gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from herdlm.base.errors import InputError

TokensOption = Annotated[
    float | None, typer.Option(help="Tokens of a whole run: adds its days, GPU-hours, energy, price and failures.")
]
FailuresOption = Annotated[
    Path | None, typer.Option(help="A TOML file of failures that were counted; by default the Llama 3 report's.")
]
StorageOption = Annotated[
    float | None, typer.Option(min=0, help="GB/s of all storage; by default 0.122 for each GPU, as in the report.")
]
CheckpointOption = Annotated[
    float | None, typer.Option(min=0, help="Seconds of work between checkpoints; by default the best.")
]
BlockingOption = Annotated[bool, typer.Option("--blocking", help="Training waits until a checkpoint is written.")]
SparesOption = Annotated[int | None, typer.Option(min=0, help="Spare hosts; by default enough for 99% of failures.")]
PriceOption = Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Dollars of a GPU-hour, such as 2.0:3.0.")]
PueOption = Annotated[
    float | None, typer.Option(help="Power of the building over that of its machines; by default 1.1.")
]
Co2Option = Annotated[float | None, typer.Option(help="Kilograms of CO2 for a kilowatt-hour: adds tonnes of CO2.")]
ServeOption = Annotated[bool, typer.Option("--serve", help="Plan engines that serve the model.")]
RequestsOption = Annotated[float | None, typer.Option(min=0, help="Requests per second, for --serve.")]
InputOption = Annotated[int | None, typer.Option("--input", min=1, help="Tokens of a prompt.")]
OutputOption = Annotated[int | None, typer.Option("--output", min=1, help="Tokens of an answer.")]
FirstTokenOption = Annotated[float | None, typer.Option(min=0, help="Most mean seconds to the first token.")]
EachTokenOption = Annotated[float | None, typer.Option(min=0, help="Most mean seconds for each further token.")]
SequencesOption = Annotated[int | None, typer.Option(min=1, help="Most sequences that an engine decodes at a time.")]
PromptsOption = Annotated[
    int | None, typer.Option(min=1, help="Prompts of a batch of herdlm grpo: adds the time of sampling and training.")
]
SamplesOption = Annotated[int, typer.Option(min=2, help="Answers to each prompt, with --prompts-per-step.")]
Parts = tuple[dict[str, Any], list[str]]

SHAPE = {"recipe", "model", "layers", "hidden", "ffn", "heads", "kv_heads", "vocab", "mlp", "set_"}
LENGTHS = {"input_", "output"}
TRAFFIC = {"requests_per_s", "first_token", "each_token", "sequences"}
OF_FILE = {"file", "hardware", "json_"}
OF_SERVING = SHAPE | LENGTHS | TRAFFIC | {"gpu", "system", "hardware", "precision", "serve", "json_"}


def refuse_unused(ctx: typer.Context) -> None:
    """Refuse options on the command line that what was asked for does not use.

    Raises:
        InputError: there is one.
    """
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if "file" in given:
        unused, why = set(given) - OF_FILE, "is not about the rows of a file"
    elif "serve" in given:
        unused, why = set(given) - OF_SERVING, "is not about serving"
    else:
        batch = LENGTHS | {"samples"}
        unused = set(given) & (TRAFFIC | (set() if "prompts_per_step" in given else batch))
        why = "needs --serve, or --prompts-per-step" if unused & batch else "needs --serve"
    if first := next((name for name in given if name in unused), None):
        raise InputError(f"--{first.strip('_').replace('_', '-')} {why}", "Remove it")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What ``herdlm plan --tokens`` takes."""

    tokens: float | None
    failures: Path | None
    storage: float | None
    checkpoint_every: float | None
    blocking: bool
    spares: int | None
    price: str | None
    pue: float | None
    co2: float | None

    def given(self) -> str | None:
        """An option that is given although a run's tokens are not."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "tokens"}
        found = next((name for name, value in values.items() if value is not None and value is not False), None)
        return f"--{found.replace('_', '-')}" if found else None


def run_part(options: RunOptions, prediction: Any) -> Mapping[str, Any] | None:
    """The whole run of a predicted step; None without ``--tokens``.

    Raises:
        InputError: an option is impossible, or needs ``--tokens``.
    """
    from herdlm.plan.money import Figure, rates_of
    from herdlm.plan.reliability.checkpoints import costs
    from herdlm.plan.reliability.failures import read_failures
    from herdlm.plan.reliability.plan import Operations
    from herdlm.plan.run_forecast import forecast_run, with_interval

    if options.tokens is None:
        if given := options.given():
            raise InputError(f"{given} is about a whole run, but its tokens are not given", "Give --tokens")
        return None
    job, machine = prediction.job, prediction.machine
    seconds = prediction.step.seconds
    low, high = prediction.as_json()["intervals"]["step_seconds"]
    storage = options.storage * 1e9 if options.storage is not None else None
    checkpoints = costs(job.shape.parameters, job.gpus, storage=storage, blocking=options.blocking)
    return forecast_run(
        tokens=options.tokens,
        tokens_per_step=job.tokens_per_step,
        step_seconds=Figure(seconds, low, high),
        gpus=job.gpus,
        gpus_per_host=machine.gpus_per_node,
        failures=read_failures(options.failures),
        checkpoints=with_interval(checkpoints, options.checkpoint_every),
        operations=Operations(spares=options.spares),
        rates=rates_of(machine, dollars=_price(options.price), pue=options.pue, co2=options.co2),
    )


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What ``herdlm plan --serve`` takes."""

    requests_per_s: float | None
    input: int | None
    output: int | None
    first_token: float | None
    each_token: float | None
    sequences: int | None


def serving_part(options: ServingOptions, shape: Any, machine: Any, precision: str | None) -> dict[str, Any]:
    """Engines that serve a model, in one precision or in both.

    Raises:
        InputError: the traffic is not given, or no engine serves it.
    """
    from herdlm.plan.constants import read_constants
    from herdlm.plan.serving.load import MOST_SEQUENCES, Goals, Traffic
    from herdlm.plan.serving.plan import Demand, plan_serving
    from herdlm.plan.serving.speed import serving_constants

    if options.requests_per_s is None or options.input is None or options.output is None:
        raise InputError("serving needs its traffic", "Give --requests-per-s, --input and --output")
    demand = Demand(
        shape,
        machine,
        Traffic(options.requests_per_s, options.input, options.output),
        Goals(options.first_token, options.each_token),
        options.sequences or MOST_SEQUENCES,
    )
    precisions = (precision,) if precision else ("bf16", "fp8")
    return plan_serving(demand, serving_constants(), read_constants(), precisions)


def parts_of(run: RunOptions, batch: tuple[int | None, int], lengths: ServingOptions, request: Any, best: Any) -> Parts:
    """What the options add to a predicted step: values by name, and lines of text."""
    from herdlm.plan import run_text

    values: dict[str, Any] = {}
    lines: list[str] = []
    whole = run_part(run, best)
    if whole is not None:
        values["run"] = whole
        lines += ["", *run_text.run_lines(whole)]
    prompts, samples = batch
    if prompts is not None:
        layout = best.job.layout
        chosen = {
            name: getattr(layout, name) for name in ("tp", "cp", "pp", "vpp", "schedule", "recompute", "dp_shard")
        }
        values["grpo"] = grpo_part(prompts, samples, lengths, request.changed(chosen), best.machine)
        lines += ["", *run_text.grpo_lines(values["grpo"])]
    return values, lines


def grpo_part(prompts: int, samples: int, options: ServingOptions, request: Any, machine: Any) -> dict[str, Any]:
    """A batch of policy gradient in the layout of a request.

    Raises:
        InputError: the lengths are not given, or do not fit.
    """
    from herdlm.plan.constants import read_constants
    from herdlm.plan.grpo import Batch, plan_grpo
    from herdlm.plan.serving.speed import serving_constants

    if options.input is None or options.output is None:
        raise InputError("a batch of samples has prompts and answers", "Give --input and --output")
    batch = Batch(prompts, samples, options.input, options.output)
    return plan_grpo(request, batch, machine, read_constants(), serving_constants())


def _price(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":")) if ":" in text else (float(text), float(text))
    except ValueError as error:
        raise InputError(f"--price {text!r} is no range", "Give LOW:HIGH, such as 2.0:3.0") from error
    return low, high
