"""Every reader of a user's file: how a whole file of its kind is made, and what is done with a changed one.

A read ends in one of two ways: a value, or an :class:`InputError` of one line, for which a command exits with 2.
Where a file holds records, some may be counted as faults. Anything else, of any type, is an error in the reader.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn

from herdlm.base.artifact import publish, read_manifest
from herdlm.base.errors import InputError
from herdlm.model.hf import generation_of, load_folder, save_folder
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import TokenizerConfig, train_tokenizer
from tests.conftest import TEXT, small_model
from tests.fuzz.mutations import bytes_changed, json_changed, lines_changed, toml_changed

Changed = Callable[[bytes, Random], bytes]
DIALOG = [{"role": "user", "content": "What is a cache?"}, {"role": "assistant", "content": "A store."}]


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        make: makes a folder with whole files; called once.
        file: the file that is changed, by its name in the folder or a pattern of it.
        change: how.
        read: reads the folder; returns how many records were counted as faults.
    """

    make: Callable[[Path], None]
    file: str
    change: Changed
    read: Callable[[Path], int]

    def path(self, folder: Path) -> Path:
        """The file to be changed."""
        (found,) = folder.glob(self.file)
        return found


def _model(folder: Path) -> None:
    save_folder(small_model(), folder, generation={"eos_token_id": 5}, max_shard_bytes=40_000)
    train_tokenizer([TEXT], TokenizerConfig(vocab_size=400)).save(folder)


def _load(folder: Path) -> int:
    load_folder(folder)
    return 0


def _format(folder: Path) -> int:
    from herdlm.serve.workers.memory import estimate_memory
    from herdlm.serve.workers.model_text import ModelText
    from herdlm.serve.workers.protocol import WorkerOptions

    text = ModelText.read(folder)
    estimate_memory(text, WorkerOptions(str(folder)))
    text.tokenizer.decode(text.tokenizer.encode(TEXT))
    if text.format.template_text:
        text.chat_prompt(DIALOG[:1])
        text.format.render(DIALOG)
    generation_of(folder)
    return 0


def _chat_format(folder: Path) -> int:
    format = ChatFormat.load(folder)
    if format.template_text:
        format.prompt(DIALOG[:1])
    return 0


def _recipe(folder: Path) -> None:
    shutil.copy(Path("recipes/smoke.toml"), folder / "r.toml")
    shutil.copytree("recipes", folder / "recipes", dirs_exist_ok=True)
    text = (folder / "r.toml").read_text()
    (folder / "r.toml").write_text(text.replace('extends = "', 'extends = "recipes/'))


def _read_recipe(folder: Path) -> int:
    from herdlm.plan.cost import describe
    from herdlm.recipe import read_recipe

    recipe = read_recipe(folder / "r.toml")
    recipe.model_dump_json()
    describe(recipe.herd_job())
    return 0


def _artifact(folder: Path) -> None:
    working = folder / "w"
    (working / "more").mkdir(parents=True)
    (working / "more" / "a.txt").write_text("text")
    publish(working, folder / "a", kind="k", stage="s", fingerprint="", inputs={}, recipe={"a": [1]}, seeds={},
            counts={"n": 1}, seconds=0.5, code={})  # fmt: skip


def _read_artifact(folder: Path) -> int:
    from herdlm.run.verify import verify_path

    read_manifest(folder / "a")
    verify_path(folder / "a")
    return 0


def _keys(folder: Path) -> None:
    from herdlm.serve.access.keys import KeyFile

    for name in ("a", "b"):
        KeyFile(folder / "keys.json").add(name, requests_per_minute=3)


def _read_keys(folder: Path) -> int:
    from herdlm.serve.access.keys import KeyFile

    KeyFile(folder / "keys.json").find("x")
    return 0


def _prompts(folder: Path) -> None:
    rows = [
        {"id": "a", "prompt": "text", "max_tokens": 3, "stop": ["x"], "temperature": 0.5},
        {"id": 7, "messages": DIALOG[:1], "seed": 4, "logit_bias": {"3": -1.5}},
        {"prompt": "y", "n": 2, "grammar": {"regex": "[a-c]+"}},
    ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def _read_prompts(folder: Path) -> int:
    from herdlm.serve.batch.prompts import Options, Prompts

    prompts = Prompts(folder / "in.jsonl", Options())
    for number in range(len(prompts)):
        prompts.request(number)
    prompts.close()
    return 0


def _rows() -> list[dict[str, Any]]:
    return [{"text": f"{TEXT} {n}", "url": f"https://x.example/{n}", "date": "2024-01-02", "n": n} for n in range(6)]


def _jsonl(folder: Path) -> None:
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, _rows())))


def _gzipped(folder: Path) -> None:
    (folder / "in.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, _rows())).encode()))


def _parquet(folder: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row | {"date": datetime.datetime(2024, 1, 1)} for row in _rows()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet", row_group_size=3)


def _warc(folder: Path) -> None:
    from tests.curate.crawls import small_crawl

    (folder / "in.warc").write_bytes(b"".join(small_crawl()))


def _zipped_warc(folder: Path) -> None:
    from tests.curate.crawls import small_crawl, zipped

    (folder / "in.warc.gz").write_bytes(b"".join(map(zipped, small_crawl())))


def _pages(folder: Path) -> int:
    """Reads the pages, and takes them through the first pass into a file."""
    from herdlm.curate.annotate import AnnotateTask, annotate
    from herdlm.curate.config import CurateConfig
    from herdlm.curate.sources.find import find_sources
    from herdlm.curate.sources.shards import plan_shards

    config, faults = CurateConfig(workers=1), 0
    (source,) = folder.glob("in.*")
    for number, shard in enumerate(plan_shards(find_sources([str(source)], config), config)):
        summary = annotate(AnnotateTask(shard, config, 0, folder / f"out-{number}.parquet", "v"))
        faults += summary["pages"] - summary["usable"]
    return faults


def _dialogs(folder: Path) -> None:
    rows = [{"messages": DIALOG, "source": f"x{number}"} for number in range(3)]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def _read_dialogs(folder: Path) -> int:
    from herdlm.data.read import converted
    from herdlm.data.row import RowError

    return sum(isinstance(row, RowError) for row in converted(folder / "in.jsonl", "dialogs"))


def _checkpoint(folder: Path) -> None:
    model, optimizer, average = _state()
    with _checkpointer(folder, model, optimizer, average) as checkpointer:
        for step in (10, 20):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            average.add(model)
            checkpointer.save(step)


def _state() -> tuple[Any, Any, Any]:
    from herdlm.train.checkpoint import Average

    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    return model, torch.optim.AdamW(model.parameters()), Average()


def _checkpointer(folder: Path, *state: Any) -> Any:
    from herdlm.train.checkpoint import Checkpointer
    from herdlm.train.config import TrainConfig

    config = TrainConfig(peak_lr=0.1, warmup_steps=1, checkpoint_every_steps=10, checkpoints_kept=3)
    return Checkpointer(folder / "checkpoints", *state, config)


def _restore(folder: Path) -> int:
    with _checkpointer(folder, *_state()) as checkpointer:
        _, damaged = checkpointer.restore()
    return len(damaged)


def _shard(folder: Path) -> None:
    from herdlm.tokens.shards import ShardWriter

    writer = ShardWriter(folder, vocab_size=400, tokenizer="t")
    for length in (3, 5):
        writer.add(list(range(length)), text_bytes=9)
    writer.close()


def _read_shard(folder: Path) -> int:
    from herdlm.tokens.shards import Shard

    shard = Shard(folder)
    shard.lengths()
    shard.content()
    return 0


def _gguf(folder: Path) -> None:
    from herdlm.convert.gguf import export_gguf

    _model(folder / "m")
    export_gguf(folder / "m", folder / "m.gguf", "q8_0")
    shutil.rmtree(folder / "m")


def _read_gguf(folder: Path) -> int:
    from herdlm.convert.gguf import import_gguf

    shutil.rmtree(folder / "out", ignore_errors=True)
    import_gguf(folder / "m.gguf", folder / "out")
    return 0


def _task(folder: Path) -> None:
    from importlib.resources import files

    found = sorted(files("herdlm.evaluate").joinpath("tasks").iterdir(), key=lambda path: path.name)
    text = next(path for path in found if path.name.endswith(".toml")).read_text()
    (folder / "task.toml").write_text(text)


def _read_task(folder: Path) -> int:
    from herdlm.evaluate.task import load_task

    load_task(str(folder / "task.toml"))
    return 0


def _memory(folder: Path) -> None:
    from herdlm.curate.config import CurateConfig
    from herdlm.curate.sources.hashes import source_content

    _jsonl(folder)
    source_content(str(folder / "in.jsonl"), CurateConfig(), folder)


def _read_memory(folder: Path) -> int:
    from herdlm.curate.config import CurateConfig
    from herdlm.curate.sources.hashes import source_content

    assert len(source_content(str(folder / "in.jsonl"), CurateConfig(), folder)) == 64
    return 0


READERS: dict[str, Reader] = {
    "config": Reader(_model, "config.json", json_changed, _load),
    "index": Reader(_model, "model.safetensors.index.json", json_changed, _load),
    "weights": Reader(_model, "model-00001-of-*.safetensors", bytes_changed, _load),
    "config of a server": Reader(_model, "config.json", json_changed, _format),
    "tokenizer": Reader(_model, "tokenizer.json", json_changed, _chat_format),
    "tokenizer settings": Reader(_model, "tokenizer_config.json", json_changed, _format),
    "generation settings": Reader(_model, "generation_config.json", json_changed, _format),
    "chat template": Reader(_model, "chat_template.jinja", bytes_changed, _format),
    "recipe": Reader(_recipe, "r.toml", toml_changed, _read_recipe),
    "manifest": Reader(_artifact, "a/manifest.json", json_changed, _read_artifact),
    "keys": Reader(_keys, "keys.json", json_changed, _read_keys),
    "batch": Reader(_prompts, "in.jsonl", lines_changed, _read_prompts),
    "JSONL": Reader(_jsonl, "in.jsonl", lines_changed, _pages),
    "JSONL, gzipped": Reader(_gzipped, "in.jsonl.gz", bytes_changed, _pages),
    "Parquet": Reader(_parquet, "in.parquet", bytes_changed, _pages),
    "WARC": Reader(_warc, "in.warc", bytes_changed, _pages),
    "WARC, gzipped": Reader(_zipped_warc, "in.warc.gz", bytes_changed, _pages),
    "dialogs": Reader(_dialogs, "in.jsonl", lines_changed, _read_dialogs),
    "checkpoint state": Reader(_checkpoint, "checkpoints/step-00000020/state.json", json_changed, _restore),
    "checkpoint hashes": Reader(_checkpoint, "checkpoints/step-00000020/hashes-00000.json", json_changed, _restore),
    "token shard": Reader(_shard, "index.json", json_changed, _read_shard),
    "GGUF": Reader(_gguf, "m.gguf", bytes_changed, _read_gguf),
    "task": Reader(_task, "task.toml", toml_changed, _read_task),
    "memory of hashes": Reader(_memory, ".source-hashes.json", json_changed, _read_memory),
}


def outcome(reader: Reader, folder: Path) -> str:
    """What came of reading a folder: "clean" (a value, or one error of the input) or "counted" (records at fault)."""
    try:
        return "counted" if reader.read(folder) else "clean"
    except InputError as error:
        assert error.exit_code == 2 and str(error).strip(), repr(error)
        assert len(str(error)) < 5000, f"an error of {len(str(error))} characters"
        return "clean"
