"""A model folder and tasks for tests of evaluation."""

import json

from herdlm.evaluate.asking import Settings
from herdlm.evaluate.run import evaluate, load
from herdlm.evaluate.task import Task, TaskFile, load_task
from herdlm.model.hf import save_folder

CHOICE = {
    "title": "Choices",
    "about": "made up",
    "kind": "choice",
    "metrics": ["acc", "acc_norm", "acc_bytes"],
    "items": {"files": ["items.jsonl"], "source": "made up"},
    "prompt": {"text": "{{ q }}\nAnswer:", "choices": "options", "answer": "right"},
}
ROWS = [
    {"q": "Which keeps a log?", "options": ["the server", "a package manager", "space"], "right": 0},
    {"q": "What is full?", "options": ["the disk", "thé archive, ✓"], "right": 1},
    {"q": "Who removes a package?", "options": ["a user", "sleep", "the file", "2024"], "right": 0},
    {"q": "What stops? ", "options": ["the service", "it"], "right": 0},
    {"q": "", "options": ["we", "they'd"], "right": 1},
]


def task_of(tables, name="made_up") -> Task:
    return Task(name, TaskFile.model_validate(tables))


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_folder(folder, model, tokenizer):
    save_folder(model, folder)
    tokenizer.save(folder)
    return folder


def result_of(model, task, data, out, **settings):
    if isinstance(task, str):
        task = load_task(task)
    return evaluate(model, load(task, [data], Settings(**settings)), out, quiet=True)
