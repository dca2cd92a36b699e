"""Files that start a run on a cluster: as they should read, and as a shell or Kubernetes reads them."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from herdlm.base.errors import InputError
from herdlm.plan.launch import kubernetes, plan_job, slurm
from herdlm.recipe import read_recipe
from tests.run.conftest import ROOT, herdlm

GOLDEN = Path(__file__).parent / "golden"
WHERE = ("--tokens", "/lustre/tokens", "--tokenizer", "/lustre/tokenizer", "--out", "/lustre/models/405 b")
IN_PODS = dict(tokens="/data/tokens", tokenizer="/data/tokenizer", out="/data/models/1b")


def job(name="1b", model="1b", **options):
    given = dict(path=f"/data/recipes/{name}.toml", **IN_PODS) | options
    recipe = read_recipe(ROOT / "recipes" / f"{name}.toml")
    return plan_job(recipe.name, recipe.job(model), **given)


def test_the_sbatch_file_of_the_405b_is_as_before():
    done = herdlm(
        "launch",
        "recipes/llama3.1-405b.toml",
        "--slurm",
        *WHERE,
        "--sbatch=--partition=gpu",
        "--set",
        "pretrain.train.peak_lr=7e-5",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (GOLDEN / "llama3.1-405b.sbatch").read_text()


def test_the_manifest_of_the_1b_is_as_before():
    text = kubernetes(job(nodes=2), image="registry.example/herdlm:1", claim="herd")
    assert text == (GOLDEN / "1b.yaml").read_text()


def test_a_shell_runs_the_sbatch_file_and_torchrun_gets_the_words(tmp_path):
    """With stand-ins on the path for Slurm's programs: srun runs what it is given, torchrun tells what it got."""
    programs = {"scontrol": "echo node07; echo node08", "srun": 'shift; "$@"', "torchrun": 'printf "%s\\n" "$@"'}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    out = "/data/it's $HOME `here`"
    file = tmp_path / "job.sbatch"
    file.write_text(slurm(job(nodes=2, out=out, overrides=['name="a b"'])))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[07-08]"}
    done = subprocess.run(
        ["bash", str(file)], capture_output=True, text=True, env=environment | {"SLURM_JOB_ID": "42"}, check=True
    )
    assert done.stdout.splitlines() == [
        "--nnodes=2",
        "--nproc-per-node=8",
        "--max-restarts=10",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=node07:29500",
        "--rdzv-id=42",
        "-m",
        "herdlm.cli",
        "train",
        "/data/recipes/1b.toml",
        "--model",
        "1b",
        "--tokens",
        "/data/tokens",
        "--tokenizer",
        "/data/tokenizer",
        "--out",
        out,
        "--set",
        'name="a b"',
    ]


def test_kubernetes_reads_one_service_and_one_pod_a_node():
    text = kubernetes(job(nodes=3, overrides=["name=$(HOME)"]), image="herdlm", claim="herd")
    service, work = yaml.safe_load_all(text)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": work["metadata"]["name"]}
    assert work["spec"]["completions"] == work["spec"]["parallelism"] == 3
    pod = work["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    words = shlex.split(container["args"][0].replace("$$(", "$("))
    assert words[:4] == ["exec", "torchrun", "--nnodes=3", "--nproc-per-node=8"]
    assert "--rdzv-endpoint=herdlm-1b-0.herdlm-1b:29500" in words
    assert words[-2:] == ["--set", "name=$(HOME)"]


def test_the_command_is_one_that_train_takes():
    """Every option of the file is one of `herdlm train`, so that the file cannot outlive a change of it."""
    from typer.main import get_command

    from herdlm.cli.app import app

    command = job(nodes=1, overrides=["seed=3"]).command
    assert command[:3] == ("-m", "herdlm.cli", "train")
    train = get_command(app).commands["train"]
    context = train.make_context("train", list(command[3:]))
    assert str(context.params["out"]) == "/data/models/1b"
    assert context.params["set_"] == ["seed=3"]


def test_a_layout_smaller_than_a_node_takes_what_it_needs():
    assert job("tiny", "flagship", nodes=1, gpus_per_node=4).nodes == 1
    recipe = read_recipe(ROOT / "recipes" / "1b.toml", ["parallel.dp_shard=2"])
    small = plan_job(recipe.name, recipe.job("1b"), path="/data/r.toml", **IN_PODS)
    assert (small.nodes, small.gpus_per_node) == (1, 2)


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ([], {}, r"parallel\.dp_shard = -1\)\. Give --nodes"),
        (
            ["parallel.dp_shard=12"],
            {},
            r"12 processes do not fill whole nodes of 8 GPUs. .* a divisor \(2, 3, 4, 6, 12",
        ),
        (
            ["parallel.dp_shard=4", "herd.tied_embeddings=false", "parallel.tp=4"],
            {"gpus_per_node": 2},
            "would span nodes",
        ),
        (["parallel.dp_shard=8"], {"nodes": 2}, "is 8, but there are 16 processes. Layouts that work"),
        ([], {"nodes": 0}, "Give positive numbers"),
        ([], {"nodes": 1, "out": "/data/a\nb"}, "unprintable character"),
    ],
)
def test_a_layout_that_cannot_be_launched_is_refused(overrides, options, message):
    recipe = read_recipe(ROOT / "recipes" / "1b.toml", overrides)
    with pytest.raises(InputError, match=message):
        plan_job(recipe.name, recipe.job("1b"), **(dict(path="/data/r.toml", **IN_PODS) | options))


def test_bad_names_are_refused():
    with pytest.raises(InputError, match="no model 2b"):
        job(model="2b")
    with pytest.raises(InputError, match="is not of the form --name=value"):
        slurm(job(nodes=1), options=["--partition=gpu\nrm -rf /"])
    with pytest.raises(InputError, match="not a valid Kubernetes name"):
        kubernetes(job(nodes=1), image="i", claim="My Claim")
    with pytest.raises(InputError, match="/lustre/t is not on the volume mounted at /data"):
        kubernetes(job(nodes=1, tokens="/lustre/t"), image="i", claim="herd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give either --slurm or --kubernetes"),
        (("--slurm", "--kubernetes"), "Give either --slurm or --kubernetes"),
        (("--slurm", "--image", "i"), "are for Kubernetes"),
        (("--kubernetes", "--sbatch=--x=1"), "is for Slurm"),
        (("--kubernetes",), "Give --image and --claim"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    done = herdlm("launch", "recipes/1b.toml", *WHERE, "--nodes", "1", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_stage_of_a_run_is_launched_by_the_command_that_makes_it():
    from typer.main import get_command

    from herdlm.cli.app import app

    given = ("recipes/tiny.toml", "--out", "/data/run", "--gpus-per-node", "2")
    done = herdlm("launch", *given, "--slurm", "--stage", "round-1-dpo", "--set", "align.parallel.dp_shard=4")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --nodes=2\n" in done.stdout
    words = shlex.split(done.stdout.partition("--rdzv-id=")[2].replace("\\\n", " "))[1:]
    assert words[:3] == ["-m", "herdlm.cli", "run"]
    context = get_command(app).commands["run"].make_context("run", words[3:])
    assert context.params["stage"] == "round-1-dpo"
    assert str(context.params["out"]) == "/data/run"
    for more, problem in (
        (("--stage", "round-1-samples"), "computes in one process"),
        (("--stage", "nowhere"), "has no stage nowhere"),
        (("--stage", "round-1-sft"), "Give --nodes"),
        (("--stage", "round-1-sft", "--tokens", "/data/tokens"), "Remove --tokens"),
        ((), "Give --tokens and --tokenizer, or --stage"),
    ):
        refused = herdlm("launch", *given, "--slurm", *more)
        assert refused.returncode == 2
        assert problem in refused.stderr
