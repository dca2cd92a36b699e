"""Losses against TRL's trainers on the same model folder, tokenizer and data."""

from functools import partial

import pytest
import torch

from herdlm.model.hf import load_folder, save_folder
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO, Reward, answer_logprobs
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


@pytest.fixture
def folders(tmp_path, tokenizer):
    """A policy and a reference model as folders transformers reads."""
    made = {}
    for seed, name in enumerate(("policy", "reference")):
        made[name] = tmp_path / name
        save_folder(small_model(seed), made[name])
        tokenizer.save(made[name])
    return made


def trl_loss(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    batch = {k: v.to("cpu") if torch.is_tensor(v) else v for k, v in batch.items()}
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch))


def config(kind, tmp_path, **more):
    import inspect

    known = inspect.signature(kind).parameters
    return kind(output_dir=str(tmp_path / "out"), **{k: v for k, v in (COMMON | more).items() if k in known})


def test_dpo_loss_is_trls(folders, tokenizer, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    theirs = trl_loss(
        DPOTrainer(
            AutoModelForCausalLM.from_pretrained(folders["policy"], dtype=torch.float32),
            ref_model=AutoModelForCausalLM.from_pretrained(folders["reference"], dtype=torch.float32),
            args=config(DPOConfig, tmp_path, beta=0.1),
            train_dataset=Dataset.from_list(PAIRS),
            processing_class=AutoTokenizer.from_pretrained(folders["policy"]),
        )
    )
    batches = partial(PreferenceBatches, ChatFormat.of(tokenizer), seq_len=128, pairs_per_step=8, epochs=1, seed=0)
    everyone = range(len(PAIRS))
    with torch.no_grad():
        batch = batches(PAIRS, mask_formatting=False).batch(everyone)
        sums, _ = answer_logprobs(load_folder(folders["reference"], dtype=torch.float32), batch)
        for side in ("chosen", "rejected"):
            batch.columns[f"reference_{side}"] = sums[batch.columns[side]]
        policy = load_folder(folders["policy"], dtype=torch.float32)
        ours = float(DPO(beta=0.1, nll_weight=0.0).loss(policy, batch)[0]) / len(PAIRS)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_reward_loss_is_trls(tokenizer, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    model = small_model(head="score")
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    save_folder(model, tmp_path / "reward")
    tokenizer.save(tmp_path / "reward")
    theirs = trl_loss(
        RewardTrainer(
            AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float32),
            args=config(RewardConfig, tmp_path),
            train_dataset=Dataset.from_list(PAIRS),
            processing_class=AutoTokenizer.from_pretrained(tmp_path / "reward"),
        )
    )
    batch = PreferenceBatches(
        ChatFormat.of(tokenizer), PAIRS, seq_len=128, pairs_per_step=8, epochs=1, seed=0, mask_formatting=False
    ).batch(range(len(PAIRS)))
    with torch.no_grad():
        ours = float(Reward().loss(model, batch)[0]) / len(PAIRS)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_sft_loss_is_trls_on_completions(folders, tokenizer, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    single = [d for d in DIALOGS if len(d["messages"]) == 2]
    rows = [{"prompt": d["messages"][:1], "completion": d["messages"][1:]} for d in single]
    theirs = trl_loss(
        SFTTrainer(
            AutoModelForCausalLM.from_pretrained(folders["policy"], dtype=torch.float32),
            args=config(SFTConfig, tmp_path, completion_only_loss=True),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folders["policy"]),
        )
    )
    batch = DialogBatches(
        ChatFormat.of(tokenizer), single, seq_len=128, rows_per_step=8, epochs=1, seed=0
    ).micro_batches(0)[0]
    with torch.no_grad():
        loss, _ = NextToken().loss(load_folder(folders["policy"], dtype=torch.float32), batch)
    assert float(loss) / NextToken().normalizer(batch) == pytest.approx(theirs, rel=1e-4)
