"""Losses and gradients against TRL's trainers on the same model folder, tokenizer and data, with LoRA and without."""

import inspect
from functools import partial

import pytest
import torch

from herdlm.align.dpo import with_reference
from herdlm.model.hf import load_for_training, save_folder
from herdlm.model.lora import adapted_modules, add_lora
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.tokens.thumbs import ThumbBatches
from herdlm.train.forward import batch_logprobs
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO, KTO, Reward
from tests.conftest import small_model
from tests.train.test_objectives import DIALOGS, PAIRS

COMMON = dict(
    use_cpu=True,
    bf16=False,
    report_to="none",
    per_device_train_batch_size=8,
    gradient_checkpointing=False,
    disable_dropout=False,
    max_length=None,
    save_strategy="no",
    dataloader_pin_memory=False,
    shuffle_dataset=False,
)
RANK, ALPHA = 4, 8
SINGLE = [dialog for dialog in DIALOGS if len(dialog["messages"]) == 2]
THUMBS = [
    {"prompt": pair["prompt"], "completion": pair["chosen" if number % 2 else "rejected"], "label": bool(number % 2)}
    for number, pair in enumerate(PAIRS)
]


@pytest.fixture(params=["whole", "lora"])
def lora(request):
    return request.param == "lora"


@pytest.fixture
def folders(tmp_path, tokenizer):
    """A policy, a reference model and a reward model as folders that transformers reads."""
    made = {}
    for seed, name in enumerate(("policy", "reference", "reward")):
        made[name] = tmp_path / name
        model = small_model(seed, **({"head": "score"} if name == "reward" else {}))
        if name == "reward":
            torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
        save_folder(model, made[name])
        tokenizer.save(made[name])
    return made


def trainer_of(kind, config_kind, folders, rows, tmp_path, *, lora, name="policy", reference="reference", **keys):
    """A trainer of TRL, on the folder ``name``; with LoRA the reference is the model without its adapters."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    auto = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    known = inspect.signature(config_kind).parameters
    args = config_kind(
        output_dir=str(tmp_path / "out"), **{k: v for k, v in (COMMON | keys).items() if k in known or k in keys}
    )
    more = {}
    if lora:
        kept = (
            {"task_type": "SEQ_CLS", "modules_to_save": ["score"]} if name == "reward" else {"task_type": "CAUSAL_LM"}
        )
        more["peft_config"] = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", **kept)
    elif reference:
        more["ref_model"] = AutoModelForCausalLM.from_pretrained(folders[reference], dtype=torch.float32)
    return kind(
        auto.from_pretrained(folders[name], dtype=torch.float32),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folders[name]),
        **more,
    )


def our_name(name):
    """The name in herdlm of a parameter in TRL's model."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace("modules_to_save.default.", "")
    return name.replace(".lora_A.default.weight", ".lora_a").replace(".lora_B.default.weight", ".lora_b")


def policy_of(folder, lora, seed=0):
    """The policy; its adapters, if any, have values."""
    model = load_for_training(folder)
    if lora:
        add_lora(model, RANK, ALPHA)
        for number, (_, module) in enumerate(adapted_modules(model)):
            torch.nn.init.normal_(module.lora_b, std=0.05, generator=torch.Generator().manual_seed(seed + number))
    return model


def theirs_of(trainer, policy):
    """TRL's loss and gradients, with the adapters of ``policy``."""
    ours = dict(policy.named_parameters())
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(ours[our_name(name)])
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    result = trainer.compute_loss(trainer.model, batch)
    loss = result[0] if isinstance(result, tuple) else result
    trainer.model.zero_grad()
    loss.backward()
    gradients = {our_name(n): p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


def assert_equal(trainer, policy, objective, batches):
    loss, gradients = theirs_of(trainer, policy)
    prepared = objective.prepare(batches, lambda given: [batch_logprobs(policy, batch) for batch in given])
    normalizer = sum(objective.normalizer(batch) for batch in prepared)
    total = sum(objective.loss(policy, batch)[0] / normalizer for batch in prepared)
    total.backward()
    print(f"loss {float(total.detach()):.7f}, TRL's {loss:.7f}")
    assert float(total.detach()) == pytest.approx(loss, rel=1e-5)
    mine = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert mine.keys() == {name for name in gradients if name != "lm_head.weight" or name in mine}
    worst = {name: float((mine[name] - g).abs().max() / g.abs().max()) for name, g in gradients.items()}
    print(f"largest difference of a gradient {max(worst.values()):.1e}")
    assert max(worst.values()) < 1e-4, worst


@pytest.mark.parametrize(
    ("kind", "theirs", "beta"), [("sigmoid", "sigmoid", 0.1), ("norm", "sigmoid_norm", 5.0), ("apo", "apo_zero", 0.05)]
)
def test_losses_on_pairs_are_trls(folders, tokenizer, tmp_path, lora, kind, theirs, beta):
    from trl import DPOConfig, DPOTrainer

    trainer = trainer_of(DPOTrainer, DPOConfig, folders, PAIRS, tmp_path, lora=lora, beta=beta, loss_type=[theirs])
    batches = partial(PreferenceBatches, ChatFormat.of(tokenizer), seq_len=128, pairs_per_step=8, epochs=1, seed=0)
    reference = load_for_training(folders["policy" if lora else "reference"])
    pairs = with_reference(reference, PAIRS, batches(PAIRS, mask_formatting=False))
    objective = DPO(beta=beta, nll_weight=0.0, kind=kind)
    policy = policy_of(folders["policy"], lora)
    assert_equal(trainer, policy, objective, batches(pairs, mask_formatting=False).micro_batches(0))


def test_simpos_loss_is_trls(folders, tokenizer, tmp_path, lora):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    keys = dict(loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=0.7, max_length=128)
    trainer = trainer_of(CPOTrainer, CPOConfig, folders, PAIRS, tmp_path, lora=lora, reference=None, **keys)
    batches = PreferenceBatches(
        ChatFormat.of(tokenizer), PAIRS, seq_len=128, pairs_per_step=8, epochs=1, seed=0, mask_formatting=False
    )
    objective = DPO(beta=2.0, nll_weight=0.0, kind="simpo", gamma=0.7)
    assert_equal(trainer, policy_of(folders["policy"], lora), objective, batches.micro_batches(0))


def test_ktos_loss_is_trls(folders, tokenizer, tmp_path, lora):
    from trl import KTOConfig, KTOTrainer

    keys = dict(beta=0.1, desirable_weight=1.3, undesirable_weight=0.8, train_sampling_strategy="sequential")
    one, two = ("reference", "policy")  # in this order the KL is above 0
    trainer = trainer_of(KTOTrainer, KTOConfig, folders, THUMBS, tmp_path, lora=lora, name=one, reference=two, **keys)
    batches = partial(
        ThumbBatches, ChatFormat.of(tokenizer), seq_len=128, thumbs_per_step=8, epochs=1, seed=0, mask_formatting=False
    )
    reference = load_for_training(folders[one if lora else two])
    thumbs = with_reference(reference, THUMBS, batches(THUMBS))
    objective = KTO(0.1, desirable_weight=1.3, undesirable_weight=0.8)
    policy = policy_of(folders[one], lora, seed=200)
    for micro in (None, 2):
        policy.zero_grad()
        (given, *_) = objective.prepare(batches(thumbs).micro_batches(0), lambda b: [batch_logprobs(policy, b[0])])
        assert given.columns["kl"][0] > 1e-3
        assert_equal(trainer, policy, objective, batches(thumbs, rows_per_micro_batch=micro).micro_batches(0))


def test_the_reward_models_loss_is_trls(folders, tokenizer, tmp_path, lora):
    from trl import RewardConfig, RewardTrainer

    trainer = trainer_of(
        RewardTrainer, RewardConfig, folders, PAIRS, tmp_path, lora=lora, name="reward", reference=None
    )
    batches = PreferenceBatches(
        ChatFormat.of(tokenizer), PAIRS, seq_len=128, pairs_per_step=8, epochs=1, seed=0, mask_formatting=False
    )
    assert_equal(trainer, policy_of(folders["reward"], lora), Reward(), batches.micro_batches(0))


@pytest.mark.parametrize("packed", [False, True])
def test_fine_tunings_loss_on_completions_is_trls(folders, tokenizer, tmp_path, lora, packed):
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": d["messages"][:1], "completion": d["messages"][1:]} for d in SINGLE * 3]
    keys = dict(completion_only_loss=True)
    if packed:
        keys |= dict(packing=True, max_length=64)
    trainer = trainer_of(SFTTrainer, SFTConfig, folders, rows, tmp_path, lora=lora, reference=None, **keys)
    seq_len = 64 if packed else 128
    data = DialogBatches(ChatFormat.of(tokenizer), SINGLE * 3, seq_len=seq_len, rows_per_step=8, epochs=1, seed=0)
    assert_equal(trainer, policy_of(folders["policy"], lora), NextToken(), data.micro_batches(0))
