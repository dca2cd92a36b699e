"""Recipes that are wrong in ways that no schema states: one error that names the file, at once."""

from pathlib import Path

import pytest

from herdlm.base.errors import HerdError, InputError, memory_error
from herdlm.plan.cost import describe
from herdlm.recipe import read_recipe

SMOKE = Path("recipes/smoke.toml")


def recipe(tmp_path, *lines, before=""):
    path = tmp_path / "r.toml"
    path.write_text("\n".join([before, f'extends = "{SMOKE.resolve()}"', *lines]))
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain.steps = " + "9" * 5000, "too many digits"),
        ("pretrain.steps = 0x" + "f" * 300, "beyond 64 bits"),
        ("pretrain.steps = 9223372036854775808", "pretrain.steps is a number beyond 64 bits"),
        ("pretrain.train.peak_lr = inf", "peak_lr = inf"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        (".".join("a" * 200_000) + " = 1", "more than 100 parts"),
        ('data.sources = ["a\\u0000b"]', "holds a zero byte"),
        ('name = "' + "x" * 5_000_000 + '"', "more than any such file"),
        ("[herd.models.flagship]\nlayers = 9223372036854775807", "layers = 9223372036854775807"),
        ("[herd.models.flagship]\ndim = 4611686018427387904", "dim = 4611686018427387904"),
        ("herd.max_seq_len = 9223372036854775807", "max_seq_len"),
        ("tokenizer.vocab_size = 9223372036854775807", ""),
        ('name = "../.."', "is no name for a folder"),
        ('name = ".hidden"', "is no name for a folder"),
        ('name = "/etc"', "is no name for a folder"),
        ('name = ""', "is no name for a folder"),
    ],
)
def test_values_beyond_any_recipe(tmp_path, line, message):
    with pytest.raises(InputError) as raised:
        describe(read_recipe(recipe(tmp_path, line)).herd_job())
    assert "r.toml" in str(raised.value) and message in str(raised.value)
    assert len(str(raised.value)) < 3000


@pytest.mark.parametrize(
    "extends", ['"\\u0000"', '"' + "x" * 5000 + '"', '"."', "[1]", '"r.toml"', '"/dev/zero"', '"/proc/self/mem"']
)
def test_what_is_extended(tmp_path, extends):
    path = tmp_path / "r.toml"
    path.write_text(f"extends = {extends}\n")
    with pytest.raises((InputError, OSError)) as raised:
        read_recipe(path)
    if isinstance(raised.value, OSError):  # which the command line tells as an error of the input
        from herdlm.base.errors import storage_error

        assert storage_error(raised.value).exit_code == 2


def test_overrides(tmp_path):
    for override in ("pretrain.steps=" + "9" * 5000, ".".join("a" * 500) + "=1", "x=[" + "[" * 5000):
        with pytest.raises(InputError):
            read_recipe(SMOKE, [override])
    assert read_recipe(SMOKE, ["name=any text of a name"]).name == "any text of a name"


def test_a_lack_of_memory_is_told_as_such():
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ):
        known = memory_error(error)
        assert isinstance(known, HerdError) and "memory is full" in str(known)
    assert memory_error(RuntimeError("shapes do not fit")) is None
    assert memory_error(ValueError("memory")) is None
