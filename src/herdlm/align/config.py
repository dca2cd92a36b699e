"""Recipe keys of post-training. Where the Llama 3 report (section 4) gives a number, it is the default."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from herdlm.align.grpo.config import GrpoConfig
from herdlm.align.mix import MixConfig
from herdlm.align.quality.config import QualityConfig
from herdlm.align.synth.config import SynthConfig
from herdlm.base.own_parts import Reference
from herdlm.base.recipe import Section
from herdlm.evaluate.task import load_task
from herdlm.parallel.config import ParallelConfig
from herdlm.train.config import TrainConfig
from herdlm.train.distill_config import TeacherConfig


class BankConfig(Section):
    """The built-in instruction tasks: the size of their vocabulary and how many questions are made."""

    words: int = Field(240, ge=16, description="how many one-token words of the corpus the tasks use")
    snippet_characters: int = Field(60, ge=10, description="longest piece of text in a task, cut between words")
    snippets_per_language: int = Field(
        2000, ge=10, description="how many pieces of text the tasks use of each language"
    )
    seed_demonstrations: int = Field(780, ge=1, description="how many demonstrations fine-tuning begins with")
    held_out_questions: int = Field(2000, ge=1, description="how many questions models are examined with")
    gate_questions: int = Field(500, ge=0, description="how many further questions decide at the gate of a round")


class SftConfig(Section):
    """Supervised fine-tuning from the pre-trained model."""

    seq_len: int = Field(gt=0, description="tokens in a row; longer dialogs are left out")
    rows_per_step: int = Field(gt=0, description="rows in a step; a row packs several dialogs")
    epochs: float | None = Field(None, gt=0, description="how often the data is read")
    steps: int | None = Field(None, ge=1, description="optimizer steps, in place of epochs")
    objective: Reference | None = Field(
        None, description="module:attribute of an objective of your own, in place of the built-in one"
    )
    distill: TeacherConfig | None = Field(
        None, description="learn a teacher's distribution of each target, too; the teacher is named by the command"
    )
    train: TrainConfig

    @model_validator(mode="after")
    def _one_length(self) -> SftConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("training is as long as epochs or steps say: give one of the two")
        return self

    @model_validator(mode="after")
    def _one_objective(self) -> SftConfig:
        if self.distill and self.objective:
            raise ValueError("distill and objective are both set: drop one, since either is the objective")
        return self

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The table, which without a teacher is what it was before there were any."""
        table: dict[str, Any] = handler(self)
        return table if self.distill else {key: value for key, value in table.items() if key != "distill"}


class PairsConfig(Section):
    """Training on preference pairs: the reward model and DPO."""

    seq_len: int = Field(gt=0, description="tokens in a row; longer pairs are left out")
    pairs_per_step: int = Field(gt=0, description="pairs in a step")
    epochs: int = Field(1, ge=1, description="how often the data is read")
    objective: Reference | None = Field(
        None, description="module:attribute of an objective of your own, in place of the built-in one"
    )
    train: TrainConfig


class RewardConfig(PairsConfig):
    """The reward model, trained from the current policy."""

    use_edited: bool = Field(True, description="also train on pairs whose chosen answer the annotator corrected")


# The strength that each loss is usually run with. The report: sigmoid. Tulu 3 (8B): norm. SimPO's paper: simpo, with a
# margin of half of it. SmolLM3: apo. The KTO paper: kto.
BETAS = {"sigmoid": 0.1, "norm": 5.0, "simpo": 2.0, "apo": 0.05, "kto": 0.1}
NLL_WEIGHT = 0.2
GAMMA_TO_BETA = 0.5


class DpoConfig(PairsConfig):
    """Preference optimization, on pairs or, with the loss "kto", on single answers with a thumb up or down."""

    loss: Literal["sigmoid", "norm", "simpo", "apo", "kto"] = Field(
        "sigmoid",
        description="sigmoid: DPO on whole answers; norm: DPO on means per token (Tulu 3); simpo: means per token "
        "without a reference; apo: APO-zero; kto: each answer by itself, up or down",
    )
    beta: float | None = Field(
        None,
        gt=0,
        description="strength of the pull toward the reference model; default by loss: sigmoid 0.1, norm 5, simpo 2, "
        "apo 0.05, kto 0.1",
    )
    gamma: float | None = Field(
        None,
        ge=0,
        description="simpo only: the margin itself, as TRL's simpo_gamma; the paper's gamma_beta_ratio is "
        "gamma / beta; default: half of beta",
    )
    nll_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the negative log-likelihood of chosen answers in a loss on pairs; default 0.2. "
        "kto has none",
    )
    desirable_weight: float = Field(1.0, gt=0, description="kto only: weight of answers with a thumb up")
    undesirable_weight: float = Field(1.0, gt=0, description="kto only: weight of answers with a thumb down")
    mask_formatting: bool = Field(True, description="leave the chat format's special tokens out of the loss")

    @property
    def beta_used(self) -> float:
        """``beta``, or the loss's own."""
        return BETAS[self.loss] if self.beta is None else self.beta

    @property
    def gamma_used(self) -> float:
        """``gamma``, or the loss's own; 0 for a loss without a margin."""
        default = GAMMA_TO_BETA * self.beta_used if self.loss == "simpo" else 0.0
        return default if self.gamma is None else self.gamma

    @property
    def nll_weight_used(self) -> float:
        """``nll_weight``, or the loss's own; 0 for a loss without the term."""
        default = 0.0 if self.loss == "kto" else NLL_WEIGHT
        return default if self.nll_weight is None else self.nll_weight

    @model_validator(mode="after")
    def _keys_go_together(self) -> DpoConfig:
        if self.gamma is not None and self.loss != "simpo":
            raise ValueError(f"gamma has no meaning with loss {self.loss!r}: drop it, or use simpo")
        if self.loss == "kto":
            if self.nll_weight is not None:
                raise ValueError("nll_weight has no meaning with loss 'kto': drop it")
        elif (self.desirable_weight, self.undesirable_weight) != (1.0, 1.0):
            raise ValueError(
                f"desirable_weight and undesirable_weight have no meaning with loss {self.loss!r}: drop them"
            )
        return self


class PreferencesConfig(Section):
    """New preference data of a round: samples of the current model, ranked by the annotator."""

    prompts: int = Field(gt=0, description="how many new prompts the model answers")
    samples: int = Field(4, ge=2, description="answers to each prompt")
    temperature: float = Field(1.0, gt=0, description="sampling temperature")
    edited_percent: float = Field(
        6.0, ge=0, le=100, description="percentage of prompts to which the annotator writes a corrected answer"
    )
    held_out_percent: float = Field(
        10.0, gt=0, lt=50, description="percentage of prompts held out to measure the reward model"
    )
    max_answer_tokens: int = Field(32, gt=0, description="longest answer, in tokens")


class RejectionConfig(Section):
    """Rejection sampling: the model gives several answers per prompt, and the best are kept."""

    choose: Literal["best", "random"] = Field(
        "best", description="the best answer to a prompt, or a random one, with which an ablation compares"
    )

    prompts: int = Field(gt=0, description="how many new prompts the model answers")
    samples: int = Field(10, ge=1, description="answers to each prompt; the report uses 10 to 30")
    temperature: float = Field(0.9, gt=0, description="sampling temperature")
    keep_per_prompt: int = Field(1, ge=1, description="most answers to keep of each prompt, those that differ most")
    keep_per_task: int = Field(200, ge=1, description="most answers to keep of each task")
    pairs_per_task: int | None = Field(
        None, ge=1, description="most pairs of each task and round, for the reward model and for DPO; none: all"
    )
    keep_share_unverified: float = Field(
        0.5, gt=0, le=1, description="share of answers to keep, best reward first, in tasks without a verifier"
    )
    max_answer_tokens: int = Field(32, gt=0, description="longest answer, in tokens")


class AlignDataConfig(Section):
    """Files of the user's own, in place of the built-in tasks or beside them. A file is FILE or FILE:weight."""

    dialogs: tuple[str, ...] = Field((), description="files of dialogs to fine-tune on")
    preferences: tuple[str, ...] = Field((), description="files of pairs for the reward model and DPO")
    prompts: tuple[str, ...] = Field(
        (), description="files of prompts for rejection sampling; by default those of the dialogs"
    )
    held_out_percent: float = Field(
        10.0, gt=0, lt=50, description="percentage of prompts held out, with all that answers them"
    )
    gate: tuple[str, ...] = Field(
        (), description="files of prompts that the gate decides with; by default half of the held-out ones"
    )
    exam: tuple[str, ...] = Field(
        (), description="files of prompts that finished models are examined with; by default half of the held-out ones"
    )
    exam_prompts: int | None = Field(
        None, ge=1, description="most prompts that finished models are examined with; by default all"
    )
    bank: bool = Field(False, description="use the built-in tasks, too")

    @model_validator(mode="after")
    def _files_suffice(self) -> AlignDataConfig:
        if self.bank and not (self.dialogs or self.preferences or self.prompts):
            raise ValueError("there are no files: name some, or drop the section")
        return self


class VariantConfig(Section):
    """A further training in each round, to average with: on part of the data, with other rates, by another seed."""

    share: float = Field(1.0, gt=0, le=1, description="random share of the fine-tuning data")
    sft_lr: float | None = Field(None, gt=0, description="in place of align.sft.train.peak_lr")
    dpo_lr: float | None = Field(None, gt=0, description="in place of align.dpo.train.peak_lr")


class AverageConfig(Section):
    """Averages of weights that the gate may choose (Llama 3 report, section 4.1.5)."""

    variants: dict[str, VariantConfig] = Field({}, description="further trainings, by name; all are averaged")
    sft: bool = Field(True, description="also average the result with the model before DPO")
    incumbent: bool = Field(True, description="also average the result with the best model so far")

    @model_validator(mode="after")
    def _names_are_free(self) -> AverageConfig:
        taken = {"samples", "verdicts", "preferences", "reward", "select", "quality", "sft", "dpo", "gate"}
        for name in self.variants:
            if name in taken or not name.isidentifier():
                raise ValueError(f"variants.{name}: a variant cannot have this name: use letters and digits")
        return self


class GateConfig(Section):
    """Held-out prompts and standard tasks that decide whether a round's model takes the place of the one before."""

    prompts: int = Field(400, ge=20, description="most held-out prompts that each candidate answers")
    max_answer_tokens: int = Field(256, gt=0, description="longest answer, in tokens")
    min_gain: float = Field(0.0, ge=0, description="by how much the mean pass rate over tasks must rise at least")
    max_drop: float = Field(0.05, ge=0, description="by how much one task of the prompts may fall, if not by chance")
    tasks: tuple[str, ...] = Field((), description="standard tasks that must not get worse; see herdlm evaluate --list")
    data: tuple[str, ...] = Field((), description="folders with the tasks' files, or files of items")
    limit: int | None = Field(None, ge=1, description="the first items of each standard task only")
    max_task_drop: float = Field(
        0.02, ge=0, description="by how much a standard task's figure may get worse than the start's"
    )

    @field_validator("tasks")
    @classmethod
    def _tasks_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            load_task(name)
        return names

    @model_validator(mode="after")
    def _tasks_have_data(self) -> GateConfig:
        if self.tasks and not self.data:
            raise ValueError("tasks are named, but data names no files for them: add it")
        return self


class TeachConfig(Section):
    """Fine-tunes the small model on the flagship's best answers."""

    answers: RejectionConfig
    seed_repeats: int = Field(2, ge=1, description="how often the demonstrations appear in the fine-tuning data")
    distill: TeacherConfig | None = Field(None, description="the small model also learns the flagship's distribution")


class AlignConfig(Section):
    """Post-training in rounds. Each starts from the pre-trained model, with data that the previous round wrote."""

    renamed: ClassVar = {"dpo_ablation": "experiments.dpo_nll"}

    rounds: int = Field(6, ge=1, description="number of rounds")
    remember_rounds: int = Field(2, ge=1, description="how many of the latest rounds give data")
    seed_repeats: int = Field(
        2, ge=1, description="how often demonstrations and corrected answers appear in the fine-tuning data"
    )
    data: AlignDataConfig | None = Field(None, description="files of the user's own; none: the built-in tasks")
    synth: SynthConfig | None = Field(None, description="generators of synthetic data; none by default")
    own_verifiers: tuple[Reference, ...] = Field(
        (), description="functions of your own, module:function, that prompts may name as their verifier"
    )
    seed_sft: SftConfig
    preferences: PreferencesConfig | None = Field(None, description="new pairs on the built-in tasks in each round")
    reward: RewardConfig
    rejection: RejectionConfig
    quality: QualityConfig | None = Field(None, description="quality control of the kept answers; none by default")
    mix: MixConfig | None = Field(
        None, description="shares of a round's fine-tuning data by capability; none: as it is"
    )
    sft: SftConfig
    dpo: DpoConfig
    average: AverageConfig | None = Field(None, description="averages that the gate may choose; needs a gate")
    gate: GateConfig | None = Field(None, description="decides whether a round's model is taken; by default all are")
    max_exam_tokens: int | None = Field(
        None, gt=0, description="longest answer in the examination of models; by default rejection.max_answer_tokens"
    )
    teach: TeachConfig | None = Field(None, description="the flagship teaches the small model; not by default")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of the engines that sample, and of matrix products when answers are scored"
    )
    batch: int = Field(
        512, ge=1, description="answers that an engine draws together; a killed stage draws its last batch again"
    )
    parallel: ParallelConfig | None = Field(
        None, description="the layout in which post-training trains; by default the recipe's [parallel]"
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="engines that sample and reward models that score, in processes of their own; by default one in "
        "the stage's process, or all that fit on the cluster",
    )
    cluster: str | None = Field(None, description="address of a Ray cluster that runs the workers")
    tensor_parallel: int = Field(1, ge=1, description="processes that share each layer of a worker's model")
    pipeline_parallel: int = Field(1, ge=1, description="processes among which a worker's layers are divided")

    @model_validator(mode="after")
    def _tasks_have_their_keys(self) -> AlignConfig:
        if not self.uses_bank and not self.synth and not (self.data and self.data.dialogs):
            raise ValueError(
                "there are no dialogs to begin with: name files in data.dialogs, or add generators to synth"
            )
        if self.uses_bank and self.preferences is None:
            raise ValueError("preferences is missing, by which answers to the built-in tasks are ranked: add it")
        if self.average and not self.gate:
            raise ValueError("average makes candidates for a gate, and there is none: add gate, or drop it")
        return self

    @model_validator(mode="after")
    def _generators_belong_to_the_run(self) -> AlignConfig:
        """The run has a name and a seed of its own, and a section that reads back from JSON has all its keys."""
        for key in ("name", "seed"):
            if self.synth and getattr(self.synth, key) != type(self.synth).model_fields[key].default:
                raise ValueError(f"synth.{key} is for herdlm synth, and a run has its own: set the recipe's {key}")
        return self

    @property
    def exam_tokens(self) -> int:
        """The longest answer in the examination of models."""
        return self.max_exam_tokens or self.rejection.max_answer_tokens

    @property
    def uses_bank(self) -> bool:
        """Whether the built-in tasks are used."""
        return self.data.bank if self.data else self.synth is None

    @property
    def samples_files(self) -> bool:
        """Whether the user's own prompts are sampled."""
        return self.synth is not None or (self.data is not None and bool(self.data.prompts or self.data.dialogs))

    @property
    def examines(self) -> bool:
        """Whether there may be held-out prompts with a verifier: built-in tasks, generators, or files of prompts."""
        files = self.data is not None and bool(self.data.prompts or self.data.gate or self.data.exam)
        return self.uses_bank or self.synth is not None or files

    @property
    def seq_lens(self) -> set[int]:
        """All row lengths of post-training."""
        return {part.seq_len for part in (self.seed_sft, self.sft, self.dpo, self.reward)}


class DpoNllConfig(Section):
    """Compares DPO with and without its likelihood term, at a learning rate where it collapses without."""

    peak_lr: float = Field(gt=0, description="learning rate of both; replaces align.dpo.train.peak_lr")


class ExperimentsConfig(Section):
    """Controls and ablations that measure what a part of the recipe is worth. Each trains models of its own."""

    control_sft: bool = Field(
        False, description="fine-tune the flagship on demonstrations and edits alone, for the last round's steps"
    )
    small_control: bool = Field(
        False, description="fine-tune the small model on demonstrations alone, for the taught model's steps"
    )
    ablations: tuple[Literal["rejection", "quality", "reward", "dpo", "averaging"], ...] = Field(
        (), description="parts that round 1 is repeated without, to measure what each is worth"
    )
    grpo: GrpoConfig | None = Field(
        None, description="policy gradient in place of the last round, from the best model before it"
    )
    repeats: int = Field(0, ge=0, description="how often the last round trains again with other seeds")
    dpo_nll: DpoNllConfig | None = Field(None, description="train DPO with and without align.dpo.nll_weight")
