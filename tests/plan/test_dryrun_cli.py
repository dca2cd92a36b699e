"""The command herdlm dryrun: what it prints, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.app import app
from tests.run.conftest import ROOT

RECIPE = str(ROOT / "recipes" / "smoke.toml")


def dryrun(*arguments):
    return CliRunner().invoke(app, ["dryrun", RECIPE, *arguments])


def test_a_rank_is_printed_as_json():
    result = dryrun("--gpus", "2", "--rank", "1", "--json")
    assert result.exception is None, result.output
    found = json.loads(result.stdout)
    (rank,) = found["ranks"]
    assert found["fits"] is True
    assert (rank["rank"], rank["ranks"], rank["place"]["dp"]) == (1, 2, 1)
    assert rank["peak"] == sum(rank["at_peak"].values())


def test_a_rank_that_does_not_fit_is_refused_after_the_table():
    result = dryrun("--gpu-gib", "0.0001")
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert "rank 0 needs" in str(result.exception)
    assert "activations" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--rank", "4"], "--rank 4 is none of 1 ranks"),
        (["--seq-len", "7"], "no phase of pre-training has rows of 7 tokens"),
        (["--gpu", "abacus"], "the GPU 'abacus' is unknown"),
        (["--objective", "luck"], "there is no objective 'luck'"),
        (["--gpus", "3", "--set", "parallel.tp=3"], "is not a multiple of parallel.tp 3"),
    ],
)
def test_mistakes_are_named(arguments, problem):
    result = dryrun(*arguments)
    assert isinstance(result.exception, InputError)
    assert problem in str(result.exception)


@pytest.mark.parametrize(("recipe", "gpus"), [("8b", 512), ("70b", 4096), ("405b", 16_384)])
def test_the_first_rank_of_the_shipped_recipes_fits_its_gpu(recipe, gpus):
    path = str(ROOT / "recipes" / f"llama3.1-{recipe}.toml")
    result = CliRunner().invoke(app, ["dryrun", path, "--gpus", str(gpus), "--rank", "0"])
    assert result.exception is None, result.exception
