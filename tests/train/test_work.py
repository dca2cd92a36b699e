"""Work folders know their run, steps without a target are named, and weights are trained in FP32."""

import json

import pytest
import torch

from herdlm.base.errors import DamagedError, InputError
from herdlm.base.events import read_events
from herdlm.model.hf import load_folder, load_for_training, read_config, save_folder
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from herdlm.train.preferences import DPO
from herdlm.train.save import save_model
from tests.conftest import small_model
from tests.train.test_loop import CONFIG, Cut, Split, batches, weights
from tests.train.test_objectives import DIALOGS


@pytest.fixture
def stopped(tokenizer, tmp_path):
    """The work folder of a run that was cut off after its first checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(batches(tokenizer), 7), CONFIG, work=tmp_path / "w", quiet=True)
    # Cut has no content of its own, so the record is made as a run on the batches themselves would make it.
    record = json.loads((tmp_path / "w" / "run.json").read_text())
    record["data"] = batches(tokenizer).content
    (tmp_path / "w" / "run.json").write_text(json.dumps(record))
    return tmp_path / "w"


def other_data(tokenizer):
    return DialogBatches(ChatFormat.of(tokenizer), DIALOGS[1:] * 4, seq_len=64, rows_per_step=2, epochs=8, seed=5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(data=other_data), "the data"),
        (dict(data=lambda t: batches(t, rows=3)), "the data"),
        (dict(config=CONFIG.model_copy(update={"peak_lr": 5e-3})), r"settings \(peak_lr = 0.01, now 0.005\)"),
        (dict(model=lambda: small_model(ffn_dim=48)), r"the shape of the model \(ffn_dim = 64, now 48\)"),
        (dict(model=lambda: small_model(seed=8)), "the initial weights"),
        (dict(objective=DPO()), r"the objective \(.*NextToken\(\), now .*DPO\(beta=0.1"),
    ],
)
def test_the_folder_of_another_run_is_refused_by_what_differs(tokenizer, stopped, change, named):
    run = dict(data=batches, config=CONFIG, model=small_model, objective=NextToken()) | change
    with pytest.raises(InputError, match=f"differs in {named}") as caught:
        train(run["model"](), run["objective"], run["data"](tokenizer), run["config"], work=stopped, quiet=True)
    assert ";" not in caught.value.what  # nothing else is named


def test_other_data_is_refused_by_their_first_rows_where_they_have_no_content(tokenizer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(batches(tokenizer), 7), CONFIG, work=tmp_path, quiet=True)
    with pytest.raises(InputError, match="differs in the data"):
        train(small_model(), NextToken(), Split(other_data(tokenizer)), CONFIG, work=tmp_path, quiet=True)
    whole = small_model()
    train(whole, NextToken(), batches(tokenizer), CONFIG, quiet=True)
    resumed = small_model()  # the same rows in other micro-batches
    train(resumed, NextToken(), Split(batches(tokenizer)), CONFIG, work=tmp_path, quiet=True)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_may_be_prolonged_and_saved_at_other_steps(tokenizer, tmp_path):
    steps = batches(tokenizer).steps
    config = CONFIG.model_copy(update={"horizon_steps": steps, "average_last": 0.0})
    model, whole = small_model(), small_model()
    train(model, NextToken(), batches(tokenizer, epochs=4), config, work=tmp_path, quiet=True)
    longer = config.model_copy(update={"checkpoint_every_steps": 3, "prefetch_steps": 0, "horizon_steps": None})
    train(model, NextToken(), batches(tokenizer), longer, work=tmp_path, quiet=True)
    train(whole, NextToken(), batches(tokenizer), longer, quiet=True)
    for name, value in weights(whole).items():
        assert torch.equal(weights(model)[name], value), name


def test_a_folder_without_checkpoints_becomes_the_new_runs(tokenizer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(batches(tokenizer), 2), CONFIG, work=tmp_path, quiet=True)
    result = train(small_model(seed=8), NextToken(), other_data(tokenizer), CONFIG, work=tmp_path, quiet=True)
    assert [e["step"] for e in read_events(tmp_path / "events.jsonl", "step")] == list(range(1, result.steps + 1))


def test_a_damaged_record_is_named(tokenizer, stopped):
    (stopped / "run.json").write_text("{")
    with pytest.raises(DamagedError, match="run.json"):
        train(small_model(), NextToken(), batches(tokenizer), CONFIG, work=stopped, quiet=True)


def test_dialogs_without_a_target_are_named_before_training(tokenizer):
    mute = {"messages": [{"role": "user", "content": "stop"}]}
    with pytest.raises(InputError, match=r"2 of 5 dialogs have no target.* numbers 2, 5"):
        DialogBatches(
            ChatFormat.of(tokenizer),
            [DIALOGS[0], mute, *DIALOGS[1:], mute],
            seq_len=64,
            rows_per_step=1,
            epochs=1,
            seed=0,
        )


def test_a_step_without_a_target_is_named_as_such(tokenizer, tmp_path):
    class Mute(Split):
        def micro_batches(self, step):
            made = super().micro_batches(step)
            if step == 2:
                for batch in made:
                    batch.weights.zero_()
            return made

    model = small_model()
    with pytest.raises(InputError, match="step 3 has no target") as caught:
        train(model, NextToken(), Mute(batches(tokenizer)), CONFIG, quiet=True)
    assert "peak_lr" not in str(caught.value)
    assert all(torch.isfinite(value).all() for value in weights(model).values())


def test_a_bfloat16_folder_is_trained_in_float32(tokenizer, tmp_path):
    save_folder(small_model(), tmp_path / "m", dtype=torch.bfloat16)
    config = CONFIG.model_copy(update={"peak_lr": 1e-5, "average_last": 0.0})
    narrow, wide = load_folder(tmp_path / "m"), load_for_training(tmp_path / "m")
    assert next(narrow.parameters()).dtype == torch.bfloat16
    before = weights(wide)
    for model in (narrow, wide):
        train(model, NextToken(), batches(tokenizer), config, quiet=True)
    for name, value in weights(wide).items():
        assert value.dtype == torch.float32
        assert torch.equal(weights(narrow)[name], value), name
        if "embed" not in name:  # rows of tokens that do not occur have no gradient
            assert (value != before[name]).float().mean() > 0.9, name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_type_of_the_saved_model_is_a_key(tokenizer, tmp_path, dtype):
    tokenizer.save(tmp_path)
    config = CONFIG.model_copy(update={"save_dtype": dtype})
    model = small_model()
    save_model(model, tmp_path / "out", tokenizer=tmp_path, work=tmp_path, dtype=config.save_dtype)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert read_config(tmp_path / "out") == model.config
    assert {p.dtype for p in load_folder(tmp_path / "out").parameters()} == {getattr(torch, dtype)}
