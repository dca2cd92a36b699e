"""Recipes whose post-training reads files: a whole run without pages, and what is refused."""

import json
import shutil

import pytest

from herdlm.align.config import RejectionConfig
from herdlm.align.samples.select import select
from herdlm.base.errors import InputError
from herdlm.base.json_lines import read_json_lines
from herdlm.recipe import read_recipe
from herdlm.run.examined import examined
from herdlm.run.pipeline import stages_of
from herdlm.run.stages.files import held_out_key
from herdlm.run.stages.rounds import selection
from tests.align.conftest import dialogs, folder, pairs, write_lines  # noqa: F401 - a fixture
from tests.run.conftest import herdlm, manifest

TRAIN = 'train = { peak_lr = 1e-3, precision = "float32" }\n'
RECIPE = f"""
[herd.models]
flagship = {{ from = "base" }}
[align]
rounds = 2
remember_rounds = 1
[align.data]
dialogs = ["chats.jsonl:2"]
preferences = ["pairs.jsonl"]
[align.seed_sft]
seq_len = 64
rows_per_step = 8
epochs = 1
{TRAIN}
[align.sft]
seq_len = 64
rows_per_step = 8
epochs = 1
{TRAIN}
[align.reward]
seq_len = 64
pairs_per_step = 8
{TRAIN}
[align.dpo]
seq_len = 64
pairs_per_step = 8
{TRAIN}
[align.rejection]
prompts = 6
samples = 2
max_answer_tokens = 6
[track]
tensorboard = "off"
"""


@pytest.fixture
def home(folder, tmp_path):  # noqa: F811
    """A folder with the recipe and what it names."""
    shutil.copytree(folder / "base", tmp_path / "base")
    write_lines(tmp_path / "chats.jsonl", dialogs(0, 40))
    write_lines(tmp_path / "pairs.jsonl", pairs(0, 40))
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def read(home, *keys):
    return read_recipe(home / "mine.toml", keys)


@pytest.mark.slow
def test_a_run_on_files_alone(home):
    done = herdlm("run", home / "mine.toml", "--out", home / "run", seconds=600)
    assert done.returncode == 0, done.stderr
    run = home / "run"
    files = manifest(run, "files")["counts"]
    assert files["dialogs"]["used"] == 80
    for name in ("dialogs", "pairs"):
        assert files[name]["training"] + files[name]["held_out"] == files[name]["used"]
        assert files[name]["held_out"] > 0
    kept, held = (
        {json.dumps(row["prompt"]) for row in read_json_lines(run / "stages" / "files" / f"{name}.jsonl")}
        for name in ("pairs", "held_out_pairs")
    )
    assert not kept & held
    # Prompts are the dialogs' own, without those held out.
    prompts = {json.dumps(row["prompt"]) for row in read_json_lines(run / "stages" / "files" / "prompts.jsonl")}
    held = read_json_lines(run / "stages" / "files" / "held_out_dialogs.jsonl")
    assert prompts and not prompts & {json.dumps(row["messages"][:-1]) for row in held}
    reward = manifest(run, "round-2-reward")["counts"]
    assert reward["pairs"] == files["pairs"]["training"]
    assert reward["held_out_pairs"] == files["pairs"]["held_out"]
    assert manifest(run, "round-1-samples")["counts"] == {"prompts": 6, "samples": 12}
    selected = read_json_lines(run / "stages" / "round-1-select" / "kept.jsonl")
    assert 0 < len(selected) <= 3  # the better half
    sft = json.loads((run / "stages" / "round-1-sft" / "training.json").read_text())
    assert sft["parts"]["files/dialogs.jsonl"] + sft["too_long"] == files["dialogs"]["training"]
    assert sft["parts"]["kept-1/kept.jsonl"] == len(selected)
    assert (run / "models" / "flagship" / "model.safetensors").exists()
    assert str(home) not in (run / "stages" / "report" / "report.html").read_text()
    again = herdlm("run", home / "mine.toml", "--out", run)
    assert again.returncode == 0
    assert "files" not in again.stdout.split() or "made" not in again.stdout


def test_the_built_in_tasks_are_one_source_among_others(home):
    keys = ('data.sources=["pages.jsonl"]', "align.data.bank=true", "align.preferences.prompts=5")
    both = read(home, *keys)
    stages = {stage.name: stage for stage in stages_of(both)}
    assert {"bank", "files", "round-1-preferences", "round-1-select"} <= set(stages)
    assert stages["round-1-samples"].inputs == {"bank": "bank", "files": "files", "model": "seeds-sft"}
    assert stages["round-2-sft"].inputs == {
        "base": "pretrain-flagship",
        "seeds": "bank",
        "files": "files",
        "preferences-1": "round-1-preferences",
        "preferences-2": "round-2-preferences",
        "kept-2": "round-2-select",
    }
    assert stages["round-2-dpo"].inputs["preferences-files"] == "files"
    assert "round-2-dpo" in examined(both)
    assert examined(read(home)) == {}


def test_what_is_selected_can_change_without_new_samples(home):
    keys = ("align.rejection.keep_per_prompt=2", "align.rejection.pairs_per_task=3")
    before, after = ({stage.name: stage for stage in stages_of(read(home, *some))} for some in ((), keys))
    assert before["round-1-samples"].settings == after["round-1-samples"].settings
    assert before["round-1-select"].settings != after["round-1-select"].settings
    assert after["round-1-verdicts"].settings["pairs_per_task"] == 3


def test_a_round_keeps_several_answers_to_a_prompt_and_limits_the_pairs():
    row = {"prompt": [{"role": "user", "content": "2 + 2?"}], "task": "sums", "verifier": "number", "answer": "4"}
    said = [("4", True), ("2 + 2 is 4", True), ("5", False), ("3 or 4", False)]
    samples = [
        {"answer": text, "model": "m", "finish": "stop", "verdict": {"passed": passed, "reason": ""}}
        for text, passed in said
    ]
    rows = [{**row, "id": f"{number:016x}", "samples": samples} for number in range(5)]
    some, more = (
        select(rows, selection(RejectionConfig(prompts=5, keep_per_prompt=kept, pairs_per_task=limit)))
        for kept, limit in ((1, None), (2, 3))
    )
    assert (len(some.kept), len(some.pairs)) == (5, 5)
    assert (len(more.kept), len(more.pairs)) == (10, 3)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["align.data.dialogs=[]"], "there are no dialogs to begin with"),
        (["align.average.sft=true"], "average makes candidates for a gate"),
        (['align.gate.tasks=["arc_easy"]'], "data names no files"),
        (['experiments.ablations=["quality"]', 'align.data.prompts=["x.jsonl"]'], "has no quality"),
        (["evaluate.control=true", 'evaluate.tasks=["piqa"]', 'evaluate.data=["x"]'], "set experiments.control_sft"),
        (["experiments.control_sft=true"], "align.data.prompts names none"),
        (["align.data.bank=true"], "preferences is missing"),
        (["align.data=false", "align.preferences.prompts=5"], r"has no \[data\]"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(home, keys, problem):
    with pytest.raises(InputError, match=problem):
        stages_of(read(home, *keys))


def test_files_are_known_by_their_content_wherever_they_lie(home, tmp_path_factory):
    def fingerprint(where):
        (stage,) = [stage for stage in stages_of(read(where)) if stage.name == "files"]
        return stage.settings, [path.rpartition("/")[2] for path in stage.aids]

    other = tmp_path_factory.mktemp("other")
    shutil.copytree(home, other, dirs_exist_ok=True)
    assert fingerprint(home) == fingerprint(other)
    assert fingerprint(home)[0]["weights"] == {
        "dialogs": [2.0],
        "preferences": [1.0],
        "prompts": [],
        "gate": [],
        "exam": [],
    }


def test_variants_train_with_their_own_rates_on_their_share(home):
    keys = ["align.gate.prompts=20", "align.average.variants.half={share=0.5, sft_lr=1e-5, dpo_lr=1e-6}"]
    stages = {stage.name: stage for stage in stages_of(read(home, *keys))}
    varied, main = stages["round-1-half-sft"], stages["round-1-sft"]
    assert varied.inputs == main.inputs and varied.settings["share"] == 0.5
    assert varied.settings["sft"]["train"]["peak_lr"] == 1e-5
    assert main.settings["sft"]["train"]["peak_lr"] == 1e-3
    assert stages["round-1-half-dpo"].settings["dpo"]["train"]["peak_lr"] == 1e-6
    gate = stages["round-1-gate"].inputs
    assert gate["candidate-half"] == "round-1-half-dpo" and gate["incumbent"] == "seeds-gate"
    assert stages["round-2-samples"].inputs["model"] == "round-1-gate"


SYNTH = ("align.synth.word_problems.count=9",)
OWN = "align.own_verifiers=['tests.align.checkable:has']"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["align.synth.seed=3", *SYNTH], "set the recipe's seed"),
        (["align.synth.name='mine'", *SYNTH], "set the recipe's name"),
        (["align.gate.tasks=['arc_eazy']", "align.gate.data=['x']"], "arc_eazy"),
        (["align.own_verifiers=['nowhere:has']"], "nowhere"),
    ],
)
def test_what_would_be_ignored_or_fail_hours_later_is_refused_at_once(home, keys, problem):
    with pytest.raises(InputError, match=problem):
        stages_of(read(home, *keys))


def test_a_recipe_with_generators_reads_back_from_json(home):
    whole = read(home, *SYNTH)
    assert type(whole).model_validate_json(whole.model_dump_json()) == whole


def test_what_decides_answers_and_verdicts_is_in_the_fingerprint(home):
    def settings(name, *keys):
        return next(stage.settings for stage in stages_of(read(home, *keys)) if stage.name == name)

    first, second = (settings("synth", f"align.synth.teacher='http://{host}:1/v1'", *SYNTH) for host in ("a", "b"))
    assert first != second
    assert settings("round-1-verdicts") != settings("round-1-verdicts", OWN)
    gate = ("align.gate.prompts=20", "align.gate.data=['x']")
    assert settings("seeds-gate", *gate) != settings("seeds-gate", *gate, "align.gate.tasks=['piqa']")


def test_examined_answers_may_be_as_long_as_sampled_ones(home):
    keys = ("align.rejection.max_answer_tokens=77", *SYNTH)
    (length,) = {s.settings["max_answer_tokens"] for s in stages_of(read(home, *keys)) if s.name.startswith("examine-")}
    assert length == 77


STORY = "Bo has {} {} and buys 12 more. How many are there?"


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (STORY.format(3, "apples"), STORY.format(41, "apples"), True),
        (STORY.format(3, "apples"), STORY.format(3, "plums"), False),
        ("What is 2 + 2?", "What is 3 * 7?", False),
        ("12", "13", False),
    ],
)
def test_a_story_with_other_numbers_is_on_the_same_side_but_sums_are_not_one(one, other, together):
    keys = {held_out_key([{"role": "user", "content": text}]) for text in (one, other)}
    assert (len(keys) == 1) is together
