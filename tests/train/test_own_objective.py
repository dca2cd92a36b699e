"""An objective of the user's own, as docs/own-parts.md shows it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.recipe import read_recipe
from herdlm.run.pipeline import stages_of
from herdlm.train.config import TrainConfig
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from herdlm.train.own_objective import open_objective
from herdlm.train.preferences import DPO
from tests.conftest import small_model
from tests.curate.crawls import article
from tests.run.conftest import ROOT
from tests.run.test_parts import SMALL, smallest_recipe
from tests.train.test_loop import batches

SECTION = (ROOT / "docs" / "own-parts.md").read_text(encoding="utf-8").split("## Your own objective")[1]
CODE = re.search(r"```python\n(.*?)```", SECTION, re.S)[1]
KEYS = re.search(r"```toml\n(.*?)```", SECTION, re.S)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder to work in that holds the page's module, under a name of this test's own."""
    (tmp_path / f"objectives_{tmp_path.name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_objective_weighs_what_the_model_does_not_know(folder, tokenizer):
    objective = open_objective(f"objectives_{folder.name}:Focal", "pretrain.objective", NextToken())
    batch, model = batches(tokenizer, epochs=1).micro_batches(0)[0], small_model()
    loss, sums = objective.loss(model, batch)
    with torch.no_grad():
        plain, _ = NextToken().loss(model, batch)
    assert 0 < loss.item() < plain.item()
    assert 0 < float(sums["focus"]) < float(batch.weights.count_nonzero())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_run_trains_on_it_and_trains_again_when_its_code_changes(tmp_path):
    (tmp_path / "my_objectives.py").write_text(CODE)
    (tmp_path / "mine.toml").write_text(smallest_recipe().replace("[pretrain]\n", KEYS))
    pages = [{"text": article("en", f"{n}"), "url": f"https://x.example/{n}"} for n in range(60)]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    keys = [part for change in SMALL for part in ("--set", change)]

    def run() -> list[str]:
        command = [sys.executable, "-m", "herdlm.cli", "run", "mine.toml", "--out", "run", "--json", *keys]
        done = subprocess.run(
            [*command, "--until", "pretrain-flagship"], cwd=tmp_path, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["made"]

    assert "pretrain-flagship" in run()
    logged = (tmp_path / "run" / "stages" / "pretrain-flagship" / "events.jsonl").read_text()
    assert '"focus"' in logged
    assert run() == []
    (tmp_path / "my_objectives.py").write_text(CODE.replace("gamma = 2.0", "gamma = 1.0"))
    assert run() == ["pretrain-flagship"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:Focal", "there is no module no_such_module"),
        ("herdlm.train.objectives:Focul", "has no Focul"),
        ("herdlm.train.preferences:answer_logprobs", "is no objective"),
    ],
)
def test_what_is_no_objective_is_refused(reference, message):
    with pytest.raises(InputError, match=message) as caught:
        open_objective(reference, "pretrain.objective", NextToken())
    assert "pretrain.objective" in str(caught.value)


def test_an_objective_that_needs_arguments_is_refused(folder):
    (folder / "needy.py").write_text(CODE + "\n    def __init__(self, gamma): self.gamma = gamma\n")
    with pytest.raises(InputError, match="missing 1 required positional argument"):
        open_objective("needy:Focal", "pretrain.objective", NextToken())


FAULTY = """
import torch
from herdlm.train.objectives import NextToken

class Raises(NextToken):
    def read(self, head, hidden, batch):
        return torch.zeros(2) + torch.zeros(3)

class NoNormalizer(NextToken):
    def normalizer(self, batch): pass

class OnlyLoss(NextToken):
    def read(self, head, hidden, batch): return hidden.sum()

class ByToken(NextToken):
    def read(self, head, hidden, batch): return hidden.sum(-1), {}

class Number(NextToken):
    def read(self, head, hidden, batch): return 1.0, {}

class LogsList(NextToken):
    def read(self, head, hidden, batch): return hidden.sum(), {"norms": [1.0]}

class NoGradient(NextToken):
    def read(self, head, hidden, batch): return hidden.detach().sum(), {}
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Raises", r"read raised RuntimeError: .*faulty\.py, line 7\)\. Fix the objective"),
        ("NoNormalizer", "normalizer raised TypeError"),
        ("OnlyLoss", "returned Tensor, not a loss and a dictionary"),
        ("ByToken", r"returned Tensor of shape \[\d+\] as the loss"),
        ("Number", "returned float as the loss"),
        ("LogsList", "returned list as norms"),
        ("NoGradient", "has no gradient"),
    ],
)
def test_an_objective_that_fails_names_its_key(folder, tokenizer, monkeypatch, name, message):
    (folder / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    objective = open_objective(f"faulty:{name}", "pretrain.objective", NextToken())
    with pytest.raises(InputError, match=message) as caught:
        train(small_model(), objective, batches(tokenizer, epochs=1), TrainConfig(peak_lr=1e-3))
    assert str(caught.value).startswith(f"pretrain.objective (faulty:{name}): ")


def test_instances_and_defaults_are_taken_as_they_are():
    assert open_objective(None, "align.dpo.objective", DPO(beta=0.2)) == DPO(beta=0.2)


def test_only_stages_that_use_it_depend_on_it():
    tiny = ROOT / "recipes" / "tiny.toml"
    plain = {stage.name: stage.settings for stage in stages_of(read_recipe(tiny))}
    own = {
        stage.name: stage.settings
        for stage in stages_of(read_recipe(tiny, ["align.dpo.objective=herdlm.train.preferences:DPO"]))
    }
    changed = {name for name in plain if own[name] != plain[name] and name != "report"}
    assert changed == {name for name in plain if name.endswith("-dpo") and name.startswith("round")} | {
        "dpo-with-nll",
        "dpo-without-nll",
    }
    assert all("code" in own[name] for name in changed)


def test_a_teacher_and_an_objective_exclude_each_other():
    overrides = [
        "pretrain.objective=herdlm.train.objectives:NextToken",
        'herd.models.small.distill={teacher = "flagship"}',
    ]
    with pytest.raises(InputError, match="drop one"):
        read_recipe(ROOT / "recipes" / "tiny.toml", overrides)
