"""The recipe key ``precision = "fp8"``: what it changes, and where it is refused."""

import pytest
import torch
from torch import nn

from herdlm.align.dpo import with_reference
from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.model.config import ModelConfig
from herdlm.model.hf import load_folder, save_folder
from herdlm.model.transformer import build, initialize
from herdlm.parallel.model import ParallelModel
from herdlm.parallel.stage import Stage
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.train.config import TrainConfig
from herdlm.train.fp8 import check_fp8
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO
from tests.conftest import small_model
from tests.train.test_loop import batches, weights
from tests.train.test_objectives import PAIRS

CONFIG = TrainConfig(peak_lr=1e-2, warmup_steps=3, precision="fp8")


def test_layers_train_in_fp8_and_the_rest_as_in_bfloat16(tokenizer, tmp_path):
    data, trained, losses = batches(tokenizer), {}, {}
    for precision in ("bfloat16", "fp8"):
        model, work = small_model(), tmp_path / precision
        train(model, NextToken(), data, CONFIG.model_copy(update={"precision": precision}), work=work, quiet=True)
        trained[precision] = model
        losses[precision] = [event["loss"] for event in read_events(work / "events.jsonl", "step")]
    kinds = {name: type(m) for name, m in trained["fp8"].named_modules() if isinstance(m, nn.Linear)}
    converted = {name.rpartition(".")[2] for name, kind in kinds.items() if kind is not nn.Linear}
    assert converted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert kinds["lm_head"] is nn.Linear
    assert losses["fp8"][-1] < losses["fp8"][0] - 0.5
    assert losses["fp8"] == pytest.approx(losses["bfloat16"], rel=0.1)
    assert losses["fp8"][0] != losses["bfloat16"][0]
    save_folder(trained["fp8"], tmp_path / "saved")  # FP32 under the usual names
    for name, value in weights(load_folder(tmp_path / "saved")).items():
        assert torch.equal(value, weights(trained["fp8"])[name]), name


def test_dpo_starts_where_its_reference_is(tokenizer, tmp_path):
    model = small_model()

    def data(pairs):
        return PreferenceBatches(
            ChatFormat.of(tokenizer),
            pairs,
            seq_len=64,
            pairs_per_step=len(PAIRS),
            epochs=1,
            seed=1,
            mask_formatting=True,
        )

    pairs = with_reference(model, PAIRS, data(PAIRS), "fp8")
    train(model, DPO(), data(pairs), CONFIG, work=tmp_path, quiet=True)
    first = next(read_events(tmp_path / "events.jsonl", "step"))
    assert (first["chosen_drift"], first["rejected_drift"]) == (pytest.approx(0, abs=1e-5), pytest.approx(0, abs=1e-5))


def test_a_device_without_fp8_products_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(
        InputError, match=r'capability 8\.9 or more .*NVIDIA A100 has 8\.0\. Set precision = "bfloat16"'
    ):
        check_fp8(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_fp8(torch.device("cuda"))
    with pytest.raises(InputError, match="needs an NVIDIA GPU or a CPU, and the device is mps"):
        check_fp8(torch.device("mps"))


def test_a_model_of_which_nothing_fits_is_refused(tokenizer):
    shape = ModelConfig(vocab_size=tokenizer.vocab_size, dim=40, layers=1, heads=4, kv_heads=2, ffn_dim=72)
    model = build(shape)
    initialize(model, 0)
    with pytest.raises(InputError, match="no matrix of the model has two dimensions that are multiples of 16"):
        train(model, NextToken(), batches(tokenizer), CONFIG, quiet=True)


def test_a_laid_out_model_that_was_not_converted_is_refused(tokenizer):
    model = small_model()
    laid_out = object.__new__(ParallelModel)  # of one process: a real one needs a process group
    laid_out.stages = {0: Stage(model, range(model.config.layers), number=0, stages=1)}
    with pytest.raises(InputError, match=r"Call train\.fp8\.use_fp8 before Layout\.apply"):
        train(laid_out, NextToken(), batches(tokenizer), CONFIG, quiet=True)
