"""LoRA: against PEFT, merged, trained by the loop, resumed, and refused where it cannot be."""

import json

import pytest
import torch

from herdlm.base.errors import DamagedError, InputError
from herdlm.model.adapter_folder import load_adapter, save_adapter
from herdlm.model.attention import DocumentAttention
from herdlm.model.hf import load_folder, save_folder
from herdlm.model.lora import adapted_modules, add_lora, merge_lora
from herdlm.train.checkpoint import checkpoints
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.conftest import small_model
from tests.train.test_loop import CONFIG, Cut, batches

TOKENS = torch.randint(0, 400, (2, 17), generator=torch.Generator().manual_seed(3))


def logits(model):
    with torch.no_grad():
        positions = torch.arange(TOKENS.shape[1]).expand_as(TOKENS)
        return model.logits(model(TOKENS, positions, DocumentAttention(torch.zeros_like(TOKENS))))


def adapted(rank=4, **options):
    """A model whose adapters say something."""
    model = small_model()
    add_lora(model, rank, **options)
    for number, (_, module) in enumerate(adapted_modules(model)):
        torch.nn.init.normal_(module.lora_b, std=0.1, generator=torch.Generator().manual_seed(number))
    return model


def test_new_adapters_change_nothing_and_only_they_are_trained():
    model, plain = small_model(), small_model()
    add_lora(model, 4)
    torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=1e-6)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all(".lora_" in name for name in trained)


def test_merged_logits_are_the_adapters(tmp_path):
    model = adapted()
    before = logits(model)
    assert (before - logits(small_model())).abs().max() > 0.1
    with pytest.raises(InputError, match="Merge them first"):
        save_folder(model, tmp_path / "m")
    merged = merge_lora(model)
    torch.testing.assert_close(logits(merged), before, rtol=1e-5, atol=1e-5)
    assert all(type(module) is torch.nn.Linear for module in merged.modules() if isinstance(module, torch.nn.Linear))
    assert all(p.requires_grad for p in merged.parameters())
    save_folder(merged, tmp_path / "m")
    torch.testing.assert_close(logits(load_folder(tmp_path / "m")), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), None])
def test_peft_loads_what_is_saved_with_equal_logits_and_so_does_herdlm(tmp_path, targets):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = adapted(alpha=12.0, **({"targets": targets} if targets else {}))
    save_folder(small_model(), tmp_path / "base")
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, logits(model), rtol=1e-4, atol=1e-5)
    again = small_model()
    load_adapter(again, tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))


def test_what_peft_saves_is_loaded_with_equal_logits(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    save_folder(small_model(), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = get_peft_model(base, LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False))
    theirs.save_pretrained(tmp_path / "adapter")
    ours = small_model()
    load_adapter(ours, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(logits(ours), theirs(TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_a_reward_models_head_is_saved_with_its_adapter(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model = small_model(head="score")
    save_folder(model, tmp_path / "base")
    add_lora(model, 4)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    for _, module in adapted_modules(model):
        torch.nn.init.normal_(module.lora_b, std=0.1, generator=torch.Generator().manual_seed(1))
    save_adapter(model, tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", dtype=torch.float32)
    base.config.pad_token_id = 399
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    tokens = TOKENS.clamp(max=398)
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.no_grad():
        ours = model.scores(model(tokens, positions, DocumentAttention(torch.zeros_like(tokens))))[:, -1]
        torch.testing.assert_close(theirs(tokens).logits[:, 0], ours, rtol=1e-4, atol=1e-5)


def test_the_loop_trains_adapters_alone_and_resumes_to_the_bit(tokenizer, tmp_path):
    data = batches(tokenizer)

    def fresh():
        model = small_model()
        add_lora(model, 4, seed=1)
        return model

    whole = fresh()
    result = train(whole, NextToken(), data, CONFIG, quiet=True)
    frozen = dict(small_model().named_parameters())
    for name, value in whole.named_parameters():
        assert torch.equal(value, frozen[name]) if name in frozen else value.abs().max() > 0, name
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), NextToken(), Cut(data, 13), CONFIG, work=tmp_path, quiet=True)
    from safetensors.torch import load_file

    (file,) = checkpoints(tmp_path / "checkpoints")[-1].glob("*.safetensors")
    assert all(".lora_" in name for name in load_file(file))
    resumed = fresh()
    again = train(resumed, NextToken(), data, CONFIG, work=tmp_path, quiet=True)
    assert again.last_loss == result.last_loss
    for (name, one), two in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_another_base_is_not_resumed_from(tokenizer, tmp_path):
    data = batches(tokenizer)
    model, other = small_model(), small_model(seed=5)
    add_lora(model, 4)
    add_lora(other, 4)
    with pytest.raises(KeyboardInterrupt):
        train(model, NextToken(), Cut(data, 9), CONFIG, work=tmp_path, quiet=True)
    with pytest.raises(InputError, match="differs in the initial weights"):
        train(other, NextToken(), data, CONFIG, work=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [(dict(rank=0), "rank"), (dict(rank=4, targets=("lm_head",)), "lm_head"), (dict(rank=4, targets=()), "nothing")],
)
def test_what_cannot_be_adapted_is_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        add_lora(small_model(), **options)


def test_adapters_of_another_kind_or_model_are_refused(tmp_path):
    save_adapter(adapted(), tmp_path)
    with pytest.raises(DamagedError, match="has shape"):
        load_adapter(small_model(ffn_dim=48), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for change, problem in (({"use_dora": True}, "use_dora"), ({"r": "4"}, "r is '4'"), ({"peft_type": "IA3"}, "IA3")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=problem):
            load_adapter(small_model(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(DamagedError, match="damaged"):
        load_adapter(small_model(), tmp_path)
