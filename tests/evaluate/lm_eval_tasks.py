"""Tasks of the lm-evaluation-harness as its package has them, on files of ours in place of its data sets."""

from __future__ import annotations

import json
from pathlib import Path

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

TASKS = Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "mmlu": "mmlu/default/mmlu_anatomy.yaml",
    "mmlu_continuation": "mmlu/continuation/mmlu_anatomy.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
}


def published_requests(name: str, rows: list[dict], folder: Path, *, shots: int = 0, examples: list[dict] = ()):
    """The arguments of a task's requests for ``rows`` in the data set's form, item by item."""
    config = load_yaml(TASKS / FILES[name])
    files = {}
    for split, content in (("test", rows), ("examples", examples)):
        if content:
            files[split] = str(folder / f"{name}-{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in content))
    for key in ("group", "tag", "task_alias", "training_split", "validation_split", "fewshot_split"):
        config.pop(key, None)
    config |= {"dataset_path": "json", "dataset_name": None, "test_split": "test", "num_fewshot": shots}
    config["dataset_kwargs"] = {"data_files": files, "cache_dir": str(folder / "cache")}
    if examples:
        config["fewshot_split"] = "examples"
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=len(rows))
    items: dict[int, list] = {}
    for instance in task.instances:
        items.setdefault(instance.doc_id, []).append(instance.args)
    return task, [items[number] for number in sorted(items)]
