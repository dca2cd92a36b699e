"""The arms of benchmarks/finetune.py: a training step of herdlm's, and one of TRL's trainers, on the same data."""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_data import END, PAD, STEPS, Sizes, ids_and_labels, open_dialogs, open_pairs, prompt_and_answer, word
from train import SHAPES

BETA = 0.1
RATE = 1e-5
MAX_NORM = 1.0
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Job:
    """What an arm trains: a task on a shape with random weights, or on the model in a folder."""

    task: str
    shape: str | None
    model: Path | None
    data: Path | None
    sizes: Sizes
    rank: int
    precision: str


def load(job: Job) -> Any:
    """The model that every arm of a job starts from."""
    from herdlm.model.config import ModelConfig
    from herdlm.model.hf import load_for_training
    from herdlm.model.lora import add_lora
    from herdlm.model.transformer import build, initialize

    if job.model:
        model = load_for_training(job.model)
    else:
        assert job.shape
        model = build(ModelConfig(**SHAPES[job.shape]))
        initialize(model, 0)
    if job.task == "lora":
        add_lora(model, job.rank, 2.0 * job.rank, TARGETS)
    return model


class OurArm:
    """One step as the training loop takes it: the same objective, gradients, clipping and optimizer."""

    def __init__(self, job: Job) -> None:
        import torch

        from herdlm.align.dpo import with_reference
        from herdlm.train.config import TrainConfig
        from herdlm.train.loop import OneProcess, make_optimizer
        from herdlm.train.objectives import NextToken, Objective
        from herdlm.train.preferences import DPO

        model = load(job)
        self.facts: dict[str, Any] = {}
        self.objective: Objective
        if job.task == "dpo":
            _, steps_of, pairs = open_pairs(job.model, job.data, model.config.vocab_size, job.sizes)
            started = time.process_time()
            pairs = with_reference(model, pairs, steps_of(pairs), job.precision)
            self.facts["reference_cpu_seconds"] = time.process_time() - started
            self.facts["reference"] = sum(pair["reference_chosen"] for pair in pairs)
            steps, self.objective = steps_of(pairs), DPO(BETA, 0.0)
            per_pair = [
                [len(steps.pieces[2 * pair + side].tokens) - 1 for side in (0, 1)] for pair in range(len(pairs))
            ]
            self.tokens = [sum(sum(per_pair[pair]) for pair in plan) for plan in steps.plan]
        else:
            steps = open_dialogs(job.model, job.data, model.config.vocab_size, job.sizes)
            self.objective = NextToken()
            self.tokens = [sum(len(steps.pieces[i].tokens) for row in plan for i in row) for plan in steps.plan]
        self.batches = [steps.micro_batches(number) for number in range(STEPS)]
        model.train()
        self.run = OneProcess(model)
        self.optimizer = make_optimizer(model, TrainConfig(peak_lr=RATE))
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bfloat16")

    def step(self, number: int) -> tuple[float, float]:
        """One optimizer step; the loss and the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        prepared = self.objective.prepare(self.batches[number], self.run.logprobs)
        total, _, _ = self.run.gradients(self.objective, prepared, self.autocast)
        norm = self.run.clip(MAX_NORM)
        self.optimizer.step()
        return float(total), float(norm)


class TheirArm:
    """A step of TRL's trainer: its own collated batches, ``training_step``, clipping and fused AdamW.

    ``kind`` is "padded" or "packed" (fine-tuning), or "precomputed" or "in memory" (DPO's reference).
    """

    def __init__(self, job: Job, kind: str) -> None:
        self.facts: dict[str, Any] = {}
        self.folder = tempfile.TemporaryDirectory()
        model = their_model(job)
        trainer = self._dpo(job, model, kind) if job.task == "dpo" else self._sft(job, model, kind)
        trainer.create_optimizer()
        self.model, self.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.optimizer = self.optimizer
        self.model.train()
        self.trainer = trainer

    def _options(self, job: Job) -> dict[str, Any]:
        return dict(
            output_dir=self.folder.name,
            use_cpu=True,
            bf16=job.precision == "bfloat16",
            gradient_checkpointing=False,
            learning_rate=RATE,
            optim="adamw_torch_fused",
            adam_beta2=0.95,
            weight_decay=0.1,
            max_grad_norm=MAX_NORM,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )

    def _sft(self, job: Job, model: Any, kind: str) -> Any:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        steps = open_dialogs(job.model, job.data, model.config.vocab_size, job.sizes)
        items = [ids_and_labels(piece) for piece in steps.pieces]
        packed = kind == "packed"
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                **self._options(job),
                packing=packed,
                max_length=job.sizes.seq_len,
                per_device_train_batch_size=job.sizes.micro_batch,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=Dataset.from_list(items[:1]),
            processing_class=number_tokenizer(model.config.vocab_size),
            peft_config=_peft(job),
        )
        if job.task == "lora":
            copy_adapters(job, trainer.model)
        self.batches, size = [], job.sizes.micro_batch
        for plan in steps.plan:
            if packed:
                parts = [[packed_row([items[i] for i in row]) for row in plan]]
            else:
                dialogs = [items[i] for row in plan for i in row]
                parts = [dialogs[at : at + size] for at in range(0, len(dialogs), size)]
            self.batches.append([trainer.data_collator(part) for part in parts])
        return trainer

    def _dpo(self, job: Job, model: Any, kind: str) -> Any:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        facts = self.facts

        class Timed(DPOTrainer):  # type: ignore[misc]
            def _precompute_ref_logps(self, *given: Any) -> Any:
                started = time.process_time()
                made = super()._precompute_ref_logps(*given)
                facts["reference_cpu_seconds"] = time.process_time() - started
                facts["reference"] = sum(made["ref_chosen_logps"])
                return made

        _, steps_of, pairs = open_pairs(job.model, job.data, model.config.vocab_size, job.sizes)
        steps = steps_of(pairs)
        texts = []
        for number in range(len(pairs)):
            (prompt, chosen), (_, rejected) = (prompt_and_answer(steps.pieces[2 * number + side]) for side in (0, 1))
            texts.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        trainer = Timed(
            model=model,
            ref_model=None if kind == "precomputed" else copy.deepcopy(model),
            args=DPOConfig(
                **self._options(job),
                beta=BETA,
                max_length=job.sizes.seq_len,
                per_device_train_batch_size=job.sizes.pairs,
                precompute_ref_log_probs=kind == "precomputed",
            ),
            train_dataset=Dataset.from_list(texts),
            processing_class=number_tokenizer(model.config.vocab_size, end=texts[0]["chosen"].split()[-1]),
        )
        prepared = trainer.train_dataset
        self.batches = [[trainer.data_collator([prepared[i] for i in plan])] for plan in steps.plan]
        return trainer

    def step(self, number: int) -> tuple[float, float]:
        """One optimizer step, as transformers' loop takes it; the loss and the gradient's norm."""
        # The collator's dictionary gets new keys in a step, so the next step needs the old ones.
        batches = [dict(batch) for batch in self.batches[number]]
        self.trainer.current_gradient_accumulation_steps = len(batches)
        items = self.trainer._get_num_items_in_batch(batches, self.trainer.args.device)
        loss = sum(self.trainer.training_step(self.model, batch, items) for batch in batches)
        norm = self.trainer.accelerator.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        self.model.zero_grad()
        return float(loss), float(norm)


def their_model(job: Job) -> Any:
    """transformers' model with the weights that ours has."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if job.model:
        return AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    assert job.shape
    shape = SHAPES[job.shape]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape["vocab_size"],
            hidden_size=shape["dim"],
            intermediate_size=shape["ffn_dim"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            rms_norm_eps=1e-5,
            rope_parameters={"rope_theta": 500_000.0, "rope_type": "default"},
            tie_word_embeddings=False,
        )
    )
    ours = load(Job(**{name: getattr(job, name) for name in Job.__slots__} | {"task": "sft"}))
    model.load_state_dict(ours.state_dict())
    return model


def _peft(job: Job) -> Any:
    if job.task != "lora":
        return None
    from peft import LoraConfig

    return LoraConfig(r=job.rank, lora_alpha=2 * job.rank, lora_dropout=0.0, target_modules=list(TARGETS))


def copy_adapters(job: Job, theirs: Any) -> None:
    """Give peft's adapters the random start of ours; the other factor is zero in both."""
    import torch

    from herdlm.model.lora import adapted_modules

    ours = {name: module.lora_a.detach() for name, module in adapted_modules(load(job))}
    copied = 0
    for name, parameter in theirs.named_parameters():
        if ".lora_A." in name:
            with torch.no_grad():
                parameter.copy_(ours[name.removeprefix("base_model.model.").partition(".lora_A.")[0]])
            copied += 1
    if copied != len(ours):
        raise RuntimeError(f"peft adapted {copied} matrices and herdlm {len(ours)}")


def packed_row(dialogs: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Dialogs as one row of a data set that TRL has packed."""
    joined = {name: [id for dialog in dialogs for id in dialog[name]] for name in ("input_ids", "labels")}
    return {**joined, "seq_lengths": [len(dialog["input_ids"]) for dialog in dialogs]}


def number_tokenizer(vocabulary: int, end: str = word(END)) -> Any:
    """A tokenizer of transformers' in which every id is a word; an answer ends with ``end``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word(id): id for id in range(vocabulary)}, unk_token=word(PAD)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=word(PAD), eos_token=end)
