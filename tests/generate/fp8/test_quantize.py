"""`herdlm quantize` as a user runs it: its options, what it refuses, and how much memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from herdlm.base.artifact import read_manifest, verify
from herdlm.base.errors import DamagedError, InputError
from herdlm.cli.app import main
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.quantize import quantize
from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.hf_config import config_to_hf
from herdlm.model.streamed_weights import Layout, StreamedWeights
from herdlm.model.transformer import Transformer
from herdlm.model.weights import open_weights, write_json
from tests.conftest import small_model


@pytest.fixture
def folder(tmp_path, tokenizer):
    save_folder(small_model(layers=4), tmp_path / "model", dtype=torch.bfloat16)
    tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def herdlm(monkeypatch, capsys):
    """The command line, in this process."""

    def command(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["herdlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(ended.value.code or 0, out, err)

    return command


def fp8_modules(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {
            name.removeprefix("model.layers.").removesuffix(".weight")
            for name in file.keys()  # noqa: SIM118
            if file.get_slice(name).get_dtype() == "F8_E4M3"
        }


def test_the_command_writes_a_model_that_the_engine_runs(herdlm, folder, tmp_path):
    done = herdlm("quantize", folder, "--out", tmp_path / "fp8")
    assert done.returncode == 0, done.stderr
    assert "of its parameters in FP8" in done.stdout
    manifest = read_manifest(tmp_path / "fp8")
    verify(tmp_path / "fp8", manifest)
    assert manifest.kind == "model" and manifest.stage == "quantize" and manifest.inputs["model"].path == str(folder)
    assert manifest.recipe == Fp8Config().model_dump(mode="json")
    assert fp8_modules(tmp_path / "fp8") == {f"{i}.mlp.{m}_proj" for i in (1, 2) for m in ("gate", "up", "down")}
    engine = Engine.load(tmp_path / "fp8")
    (completions,) = engine.generate([[5, 6, 7]], SamplingParams(max_tokens=4, temperature=0))
    assert len(completions[0].tokens) == 4


def test_each_key_is_an_option(herdlm, folder, tmp_path):
    done = herdlm(
        "quantize",
        folder,
        "--out",
        tmp_path / "fp8",
        "--activation-cap",
        600,
        "--matrices",
        "down",
        "--attention",
        "--skip-first-layers",
        0,
        "--skip-last-layers",
        3,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert fp8_modules(tmp_path / "fp8") == {"0.mlp.down_proj", *(f"0.self_attn.{m}_proj" for m in "qkvo")}
    counts = json.loads(done.stdout)
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())["quantization_config"]
    assert config["activation_scale_ub"] == 600
    assert counts["parameters_fp8"] == 32 * 64 + 2 * 32 * 32 + 2 * 32 * 16
    only_attention = herdlm(
        "quantize",
        folder,
        "--out",
        tmp_path / "b",
        "--matrices",
        "none",
        "--attention",
        "--activation-cap",
        "inf",
        "--granularity",
        "tensor",
    )
    assert only_attention.returncode == 0, only_attention.stderr
    assert fp8_modules(tmp_path / "b") == {f"{i}.self_attn.{m}_proj" for i in (1, 2) for m in "qkvo"}
    config = json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]
    assert config["activation_scale_ub"] is None
    assert config["config_groups"]["group_0"]["weights"]["strategy"] == "tensor"


def test_a_recipe_gives_the_keys_and_options_go_before_it(herdlm, folder, tmp_path):
    recipe = tmp_path / "mine.toml"
    tiny = Path(__file__).parents[3] / "recipes" / "tiny.toml"
    recipe.write_text(
        f'extends = "{tiny}"\nname = "mine"\n'
        '[quantize]\nmatrices = ["down"]\nskip_first_layers = 2\nactivation_cap = 9.0\n'
    )
    done = herdlm("quantize", folder, "--out", tmp_path / "fp8", "--recipe", recipe, "--skip-last-layers", 0)
    assert done.returncode == 0, done.stderr
    assert fp8_modules(tmp_path / "fp8") == {"2.mlp.down_proj", "3.mlp.down_proj"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--matrices", "gate"], "matrices.0 = 'gate'"),
        (["--matrices", "down,down"], "names a matrix twice"),
        (["--matrices", "none"], "no matrix is to become FP8"),
        (["--skip-first-layers", "-1"], "skip_first_layers = -1"),
        (["--skip-first-layers", "4"], "leave none of the model's 4 layers"),
        (["--activation-cap", "0"], "activation_cap = 0"),
        (["--activation-cap", "nan"], "activation_cap = nan"),
        (["--granularity", "block"], "granularity = 'block'"),
    ],
)
def test_bad_options_are_named_and_leave_nothing(herdlm, folder, tmp_path, options, said):
    done = herdlm("quantize", folder, "--out", tmp_path / "fp8", *options)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "fp8").exists()


def test_what_cannot_be_quantized_is_refused(folder, tmp_path):
    quantize(folder, tmp_path / "fp8", Fp8Config(), quiet=True)
    with pytest.raises(InputError, match="exists"):
        quantize(folder, tmp_path / "fp8", Fp8Config(), quiet=True)
    with pytest.raises(InputError, match="quantized"):
        quantize(tmp_path / "fp8", tmp_path / "again", Fp8Config(), quiet=True)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layers.1.mlp.up_proj", "layers.0.mlp.up_proj"], ids=["FP8", "left alone"])
def test_weights_that_are_not_finite_are_refused_by_tensor(tmp_path, value, name):
    model = small_model(layers=4)
    with torch.no_grad():
        model.model.get_submodule(name).weight[7, 3] = value
    save_folder(model, tmp_path / "model")
    with pytest.raises(DamagedError, match=rf"model.{name}.weight holds numbers that are not finite"):
        quantize(tmp_path / "model", tmp_path / "fp8", Fp8Config(), quiet=True)
    assert not (tmp_path / "fp8").exists()


BIG = ModelConfig(vocab_size=4096, dim=1024, layers=6, heads=8, kv_heads=8, ffn_dim=4096, max_seq_len=64)

# Runs the command while it watches the memory that is its own: pages of mapped files are the system's to take back.
WATCH = """
import sys, threading, time
from pathlib import Path

def anonymous():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024

def watch():
    while True:
        highest[0] = max(highest[0], anonymous())
        time.sleep(0.002)

from herdlm.generate.fp8.config import Fp8Config
from herdlm.model.hf import load_folder
from herdlm.generate.fp8.quantize import quantize
model, way = Path(sys.argv[1]), sys.argv[2]
before = anonymous()
highest = [before]
threading.Thread(target=watch, daemon=True).start()
if way == "quantize":
    quantize(model, Path(sys.argv[3]), Fp8Config(), quiet=True)
else:
    load_folder(model)
time.sleep(0.01)
print(highest[0] - before)
"""


def peak(*arguments) -> int:
    """Bytes that a process took beyond what its imports did."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_some_rows_not_of_the_model(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    with torch.device("meta"):
        layouts = {
            name: Layout(torch.float32, tuple(tensor.shape)) for name, tensor in Transformer(BIG).state_dict().items()
        }
    with StreamedWeights(model, layouts, 100_000_000) as file:
        for name, layout in layouts.items():
            file.write(name, 0, torch.randn(layout.shape))
    write_json(model / "config.json", config_to_hf(BIG, torch.float32))
    assert file.bytes > 400_000_000 and len(list(model.glob("*.safetensors"))) >= 4
    taken = peak(model, "quantize", tmp_path / "fp8")
    assert taken < 100_000_000
    assert peak(model, "load") > 400_000_000  # the measure sees what loading the model takes
    stored = open_weights(tmp_path / "fp8")
    assert sum(tensor.dtype == torch.float8_e4m3fn for tensor in stored.values()) == 4 * 3
