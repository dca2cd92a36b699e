"""What a stage of post-training costs: tokens, FLOPs, memory of a GPU, and seconds on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.config import PairsConfig, SftConfig
from herdlm.align.defaults import MICRO_BATCH_TOKENS
from herdlm.base.accelerators import ACCELERATORS
from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, sizes_for
from herdlm.plan import flops
from herdlm.plan.engines import EnginePlan, engine, smallest_engine
from herdlm.plan.hardware import Machine
from herdlm.plan.memory import GIGABYTE, Node
from herdlm.plan.stage_speed import StageSpeed, machine_of
from herdlm.plan.training_memory import training_memory


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What no recipe says. Lengths are means of Table 7 of the Llama 3 report; a recipe's limits may be below them.

    Attributes:
        prompt_tokens: of a prompt, with all earlier turns.
        answer_tokens: of an answer; the limit of a stage may be below it.
    """

    prompt_tokens: int = 536
    answer_tokens: int = 310


@dataclass(frozen=True, slots=True)
class Cluster:
    """The GPUs that post-training runs on: a kind of GPU, and nodes of them."""

    kind: str
    node: Node
    machine: Machine


def cluster_of(kind: str, gpus_per_node: int = 8) -> Cluster:
    """Nodes of a kind of GPU.

    Raises:
        InputError: the kind is not known.
    """
    known = ACCELERATORS.get(kind.upper())
    if known is None:
        raise InputError(f"the GPU {kind} is not known", f"Give one of {', '.join(ACCELERATORS)}")
    return Cluster(kind.upper(), Node(gpus_per_node, known.gigabytes), machine_of(kind, gpus_per_node))


@dataclass(frozen=True, slots=True)
class Workers:
    """The engines that draw and score: keys of ``[align]``.

    Attributes:
        count: None for one, or on a cluster for all that fit beside one another.
        batch: the most sequences that an engine draws together.
        width: bytes of an engine's values; ``reward_width`` of a reward model's.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    count: int | None = None
    on_cluster: bool = False
    batch: int = 512
    width: int = 2
    reward_width: int = 2


@dataclass(slots=True)
class StageCost:
    """A stage's cost; what does not apply is 0 or None.

    Attributes:
        does: what the stage does, in words.
        reads: the inputs that it needs, by stage.
        drawn_tokens: of answers, by the assumed length; ``drawn_at_most`` by the limit.
        trained_tokens: of training, read forward and backward.
        flops: by kind of work.
        layout: sizes of a training stage's layout.
        engine: of a stage that draws answers or reads them with a model.
        memory: bytes on the GPU that holds most, by what takes them, and their "sum".
        problem: why it cannot run on the cluster.
        notes: what is not counted.
    """

    stage: str
    does: str
    reads: list[str]
    model: str = ""
    prompts: int = 0
    samples: int = 0
    drawn_tokens: int = 0
    drawn_at_most: int = 0
    pairs: int = 0
    dialogs: int | None = None
    steps: int = 0
    trained_tokens: int = 0
    flops: dict[str, int] = field(default_factory=dict)
    devices: int = 0
    layout: dict[str, int] | None = None
    engine: dict[str, int] | None = None
    memory: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    problem: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Estimator:
    """Estimates stages of one model on a cluster.

    Attributes:
        parallel, devices: the layout that trains, and its processes.
    """

    name: str
    model: ModelConfig
    parallel: ParallelConfig
    devices: int
    workers: Workers
    cluster: Cluster
    assumed: Assumptions

    def draw(self, cost: StageCost, prompts: int, samples: int, most: int) -> StageCost:
        """Draws answers of at most ``most`` tokens; the answers to a prompt share its cache."""
        before, answer = self.assumed.prompt_tokens, min(self.assumed.answer_tokens, most)
        answers = prompts * samples
        cost.model, cost.prompts, cost.samples = self.name, prompts, samples
        cost.drawn_tokens, cost.drawn_at_most = answers * answer, answers * most
        cost.flops["prefill"] = prompts * flops.prefill(self.model, before)
        cost.flops["decode"] = answers * flops.decode(self.model, before, answer)
        plan = self._engine(cost, before + most, self.workers.batch, self.workers.width)
        if plan is not None and answer and answers:
            speed = self._speed(self.model)
            on = speed.engine(plan.tensor_parallel, plan.pipeline_parallel)
            engines = cost.devices // plan.gpus
            cost.seconds = sum(
                speed.drawing(
                    on, engines, (prompts, answers), (before, answer), plan.sequences, width=self.workers.width
                )
            )
        return cost

    def read_again(self, cost: StageCost, prompts: int, times: int) -> None:
        """Adds reading the prompts ``times`` more, by other models on the same engines."""
        cost.flops["prefill"] *= times + 1
        if cost.seconds is not None and cost.engine:
            speed, count = self._speed(self.model), cost.engine["count"]
            on = speed.engine(cost.engine["tensor_parallel"], cost.engine["pipeline_parallel"])
            cost.seconds += speed.reading(on, count, times * prompts, self.assumed.prompt_tokens, self.workers.width)

    def score(self, cost: StageCost, prompts: int, samples: int, most: int) -> StageCost:
        """Reads answers with a reward model. On one GPU a prompt is read once, on several again for each answer."""
        before, answer = self.assumed.prompt_tokens, min(self.assumed.answer_tokens, most)
        cost.model, cost.prompts, cost.samples = self.name, prompts, samples
        shared = samples if self.workers.tensor_parallel * self.workers.pipeline_parallel == 1 else 1
        read = flops.read_answers(self.model, before, answer, shared)
        cost.flops["score"] = prompts * samples // shared * read
        plan = self._engine(cost, before + most, 1, self.workers.reward_width)
        if plan is not None:
            speed = self._speed(self.model)
            on = speed.engine(plan.tensor_parallel, plan.pipeline_parallel)
            texts, tokens = prompts * samples // shared, before + shared * answer
            cost.seconds = speed.reading(on, cost.devices // plan.gpus, texts, tokens, self.workers.reward_width)
        return cost

    def sft(self, cost: StageCost, config: SftConfig, dialogs: int) -> StageCost:
        """Fine-tunes for the recipe's steps, in full rows, or for epochs over ``dialogs``."""
        document = self.assumed.prompt_tokens + self.assumed.answer_tokens
        per_step = config.rows_per_step * config.seq_len
        cost.dialogs = dialogs
        if config.steps is not None:
            cost.steps, tokens = config.steps, config.steps * per_step
            if dialogs:
                cost.notes.append(f"about {tokens / (dialogs * document):.2g} epochs over the dialogs")
        else:
            tokens = round(dialogs * document * (config.epochs or 0))
            cost.steps = -(-tokens // per_step)
        cost.trained_tokens = tokens
        cost.flops["train"] = flops.training(self.model, tokens, min(document, config.seq_len))
        return self._train(cost, self.model, config, config.rows_per_step)

    def pairs(self, cost: StageCost, config: PairsConfig, pairs: int, *, reward: bool) -> StageCost:
        """Trains a reward model and measures it on the pairs, or a policy, whose reference first reads them all."""
        document = self.assumed.prompt_tokens + self.assumed.answer_tokens
        model = self.model.model_copy(update={"head": "score"}) if reward else self.model
        tokens = pairs * 2 * document
        cost.pairs, cost.steps = pairs, -(-pairs * config.epochs // config.pairs_per_step)
        cost.trained_tokens = tokens * config.epochs
        cost.flops["train"] = flops.training(model, cost.trained_tokens, document)
        if reward:
            cost.flops["measure"] = flops.forward(model, tokens, document)
        elif getattr(config, "loss", None) != "simpo":
            cost.flops["reference"] = flops.forward(model, tokens, document)
        rows = -(-config.pairs_per_step * 2 * document // config.seq_len)
        return self._train(cost, model, config, rows)

    def _train(self, cost: StageCost, model: ModelConfig, config: SftConfig | PairsConfig, rows: int) -> StageCost:
        sizes = sizes_for(self.parallel, self.devices, model, config.seq_len)
        cost.model, cost.devices, cost.layout = self.name, self.devices, _layout(sizes)
        at_once = self.parallel.rows_per_micro_batch or max(1, MICRO_BATCH_TOKENS // config.seq_len)
        micro_batches = -(-rows // (at_once * sizes.dp))
        cost.memory = dict(
            training_memory(
                model,
                self.parallel,
                sizes,
                row_tokens=at_once * config.seq_len,
                micro_batches=micro_batches,
                precision=config.train.precision,
            )  # type: ignore[arg-type]
        )
        self._check(cost, "Use more processes in align.parallel, or activation_checkpointing")
        speed, parallel = self._speed(model), self.parallel
        step = speed.step(
            parallel,
            sizes,
            seq_len=config.seq_len,
            document=min(self.assumed.prompt_tokens + self.assumed.answer_tokens, config.seq_len),
            at_once=at_once,
            micro_batches=micro_batches,
            precision=config.train.precision,
        )
        read = cost.flops.get("reference", 0) + cost.flops.get("measure", 0)
        cost.seconds = step * cost.steps * (1 + read / cost.flops["train"]) if cost.steps else 0.0
        return cost

    def _engine(self, cost: StageCost, context: int, most: int, width: int) -> EnginePlan | None:
        """The engine of a stage, or None if no node holds it."""
        workers, node = self.workers, self.cluster.node
        plan = engine(
            self.model, node, context, workers.tensor_parallel, workers.pipeline_parallel, most=most, width=width
        )
        engines = workers.count or (max(self.devices // plan.gpus, 1) if workers.on_cluster else 1)
        cost.devices = engines * plan.gpus
        cost.engine = {
            "count": engines,
            "tensor_parallel": plan.tensor_parallel,
            "pipeline_parallel": plan.pipeline_parallel,
            "sequences": plan.sequences,
            "bytes_per_value": width,
        }
        cost.memory = {"weights": plan.weights, "cache": max(plan.sequences, 1) * plan.cache}
        cost.memory["sum"] = sum(cost.memory.values())
        small = smallest_engine(self.model, node, context, most=most, width=width)
        fits = f"align.tensor_parallel = {small.tensor_parallel}" + (
            f" and align.pipeline_parallel = {small.pipeline_parallel} fit" if small.pipeline_parallel > 1 else " fits"
        )
        self._check(cost, fits if small.sequences else "No engine on one node does: take GPUs with more memory (--gpu)")
        if plan.gpus > node.gpus:
            cost.problem = f"{cost.stage}: an engine on {plan.gpus} GPUs spans nodes of {node.gpus}. {fits}"
        return plan if plan.sequences else None

    def _check(self, cost: StageCost, remedy: str) -> None:
        usable = self.cluster.node.usable
        if cost.memory["sum"] > usable:
            cost.problem = (
                f"{cost.stage}: {self.name} needs {cost.memory['sum'] / GIGABYTE:,.1f} GB on a GPU, and "
                f"{self.cluster.kind} has {usable / GIGABYTE:,.1f} GB to use. {remedy}"
            )

    def _speed(self, model: ModelConfig) -> StageSpeed:
        return StageSpeed(model, self.cluster.machine)


def _layout(sizes: Sizes) -> dict[str, int]:
    return {name: getattr(sizes, name) for name in ("tp", "cp", "pp", "dp_replicate", "dp_shard")}


def total(costs: list[StageCost]) -> Mapping[str, Any]:
    """The sums over stages: tokens, FLOPs, GPU-seconds and seconds of one stage after the other."""
    kinds = sorted({kind for cost in costs for kind in cost.flops})
    return {
        "drawn_tokens": sum(cost.drawn_tokens for cost in costs),
        "trained_tokens": sum(cost.trained_tokens for cost in costs),
        "flops": {kind: sum(cost.flops.get(kind, 0) for cost in costs) for kind in kinds},
        "flops_sum": sum(sum(cost.flops.values()) for cost in costs),
        "seconds": sum(cost.seconds or 0.0 for cost in costs),
        "gpu_seconds": sum((cost.seconds or 0.0) * cost.devices for cost in costs),
    }
