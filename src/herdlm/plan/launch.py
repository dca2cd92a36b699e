"""Writes files that train a model on a cluster: an sbatch file for Slurm, a manifest for Kubernetes.

Both start ``torchrun`` on every node, with a rendezvous on the first one. If a node fails, Slurm requeues the job and
Kubernetes restarts the pod; either way the run resumes from its last checkpoint. The report's section 3.3.4 gives the
rate of such failures.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Template

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, sizes_for
from herdlm.plan.cost import layout_of
from herdlm.pretrain.job import PretrainJob

PORT = 29_500
GRACE_SECONDS = 300  # between SIGTERM and SIGKILL; enough to write the last checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command to run on the nodes of a cluster.

    Attributes:
        name: name of the job; letters, digits and dashes.
        command: arguments of one process, after ``torchrun``'s own options.
        restarts: how often a failed group of processes is restarted before the job fails.
    """

    name: str
    nodes: int
    gpus_per_node: int
    command: tuple[str, ...]
    restarts: int = 10

    def torchrun(self, *, endpoint: str, rdzv_id: str) -> list[str]:
        """``torchrun`` and its arguments, quoted for a shell except for ``endpoint`` and ``rdzv_id``."""
        return [
            "torchrun",
            f"--nnodes={self.nodes}",
            f"--nproc-per-node={self.gpus_per_node}",
            f"--max-restarts={self.restarts}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={endpoint}",
            f"--rdzv-id={rdzv_id}",
            *(shlex.quote(part) for part in self.command),
        ]


def plan_job(
    recipe: str,
    job: PretrainJob,
    *,
    path: str,
    tokens: str,
    tokenizer: str,
    out: str,
    overrides: Sequence[str] = (),
    gpus_per_node: int = 8,
    nodes: int | None = None,
    teacher: str | None = None,
) -> Job:
    """The cluster job that trains a model in its layout.

    Args:
        recipe: the recipe's name.
        path, tokens, tokenizer, out: paths of the recipe, token shards, tokenizer and output, as on every node.
        teacher: path of the teacher's folder, as on every node; required if the model has a teacher.
        nodes: number of nodes; required if ``parallel.dp_shard`` is -1.

    Raises:
        InputError: the layout does not fit the model or does not fill whole nodes.
    """
    model = job.name
    if (job.distill is None) != (teacher is None):
        raise InputError(
            f"herd.models.{model}.distill and --teacher go together, but only one of them is set", "Give both or none"
        )
    parallel = job.parallel
    _check_nodes(parallel, model, gpus_per_node, nodes)
    sizes = layout_of(job, nodes * gpus_per_node if nodes else None)
    command = ["-m", "herdlm.cli", "train", path, "--model", model]
    for option, value in (("--tokens", tokens), ("--tokenizer", tokenizer), ("--out", out)):
        command += [option, value]
    if teacher is not None:
        command += ["--teacher", teacher]
    title = recipe if recipe.endswith(model) else f"{recipe} {model}"
    return _placed(title, command, overrides, sizes, gpus_per_node)


def plan_stage(
    recipe: str,
    stage: str,
    parallel: ParallelConfig,
    shape: ModelConfig,
    *,
    path: str,
    out: str,
    seq_len: int | None = None,
    overrides: Sequence[str] = (),
    gpus_per_node: int = 8,
    nodes: int | None = None,
) -> Job:
    """The cluster job that makes one stage of a run, ``herdlm run --stage``, in a layout.

    Args:
        recipe: the recipe's name.
        shape: of the model that the stage trains.
        path, out: paths of the recipe and of the run's folder, as on every node.
        nodes: number of nodes; required if ``parallel.dp_shard`` is -1.

    Raises:
        InputError: the layout does not fit the model or does not fill whole nodes.
    """
    _check_nodes(parallel, stage, gpus_per_node, nodes)
    own = parallel.tp * parallel.cp * parallel.pp * parallel.dp_replicate * max(parallel.dp_shard, 1)
    sizes = sizes_for(parallel, nodes * gpus_per_node if nodes else own, shape, seq_len)
    command = ["-m", "herdlm.cli", "run", path, "--out", out, "--stage", stage]
    return _placed(f"{recipe} {stage}", command, overrides, sizes, gpus_per_node)


def _check_nodes(parallel: ParallelConfig, name: str, gpus_per_node: int, nodes: int | None) -> None:
    if gpus_per_node < 1 or (nodes is not None and nodes < 1):
        raise InputError(f"cannot use {nodes} nodes of {gpus_per_node} GPUs", "Give positive numbers")
    if parallel.dp_shard == -1 and nodes is None:
        raise InputError(
            f"the layout of {name} takes as many processes as there are (parallel.dp_shard = -1)", "Give --nodes"
        )


def _placed(title: str, command: list[str], overrides: Sequence[str], sizes: Sizes, gpus_per_node: int) -> Job:
    """The job of a command whose processes fill whole nodes."""
    world = sizes.tp * sizes.cp * sizes.pp * sizes.dp
    if world % gpus_per_node and world > gpus_per_node:
        near = ", ".join(str(n) for n in range(1, gpus_per_node * 2 + 1) if world % n == 0 and n > 1)
        raise InputError(
            f"the layout's {world:,} processes do not fill whole nodes of {gpus_per_node} GPUs",
            f"Set --gpus-per-node to a divisor ({near}) or change the layout",
        )
    per_node = min(world, gpus_per_node)
    if per_node % sizes.tp:
        raise InputError(
            f"parallel.tp {sizes.tp} does not divide a node's {per_node} GPUs, so tensor parallelism would span nodes",
            "Lower parallel.tp to a divisor",
        )
    for override in overrides:
        command += ["--set", override]
    if broken := next((part for part in command if not part.isprintable()), None):
        raise InputError(f"{broken!r} contains an unprintable character", "Use another name or value")
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50].strip("-")
    return Job(name=f"herdlm-{name}", nodes=world // per_node, gpus_per_node=per_node, command=tuple(command))


SBATCH = Template("""\
#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$gpus_per_node
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=TERM@$grace
${more}
# $processes processes. On SIGTERM (time limit, pre-emption) the run saves a checkpoint; submit the file again to go on.
set -euo pipefail

names=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST")
first_node=$${names%%$$'\\n'*}
export OMP_NUM_THREADS=1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$shutdown

srun --kill-on-bad-exit=1 $torchrun
""")


def slurm(job: Job, *, options: Sequence[str] = ()) -> str:
    """The text of an sbatch file.

    Args:
        options: more options of sbatch, such as ``--partition=gpu``.

    Raises:
        InputError: an option is not of the form ``--name`` or ``--name=value``.
    """
    for option in options:
        if not re.fullmatch(r"--[a-z][a-z-]*(=[^\n]+)?", option):
            raise InputError(
                f"sbatch option {option!r} is not of the form --name=value", "Write --partition=gpu, for example"
            )
    arguments = job.torchrun(endpoint=f'"$first_node:{PORT}"', rdzv_id='"$SLURM_JOB_ID"')
    more = "".join(f"#SBATCH {option}\n" for option in options)
    return SBATCH.substitute(
        name=job.name,
        nodes=job.nodes,
        gpus_per_node=job.gpus_per_node,
        more=more,
        processes=f"{job.nodes * job.gpus_per_node:,}",
        torchrun=_continued(arguments),
        grace=GRACE_SECONDS,
        shutdown=GRACE_SECONDS - 20,
    )


MANIFEST = Template("""\
# $processes processes. Pods find each other through the service; the first one holds the rendezvous.
apiVersion: v1
kind: Service
metadata:
  name: $name
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    job-name: $name
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $name
spec:
  completionMode: Indexed
  completions: $nodes
  parallelism: $nodes
  backoffLimit: $backoff
  podReplacementPolicy: Failed
  template:
    spec:
      subdomain: $name
      restartPolicy: Never
      terminationGracePeriodSeconds: $grace
      containers:
        - name: train
          image: $image
          command: ["/bin/bash", "-c"]
          args:
            - >-
              exec $torchrun
          env:
            - name: OMP_NUM_THREADS
              value: "1"
            - name: TORCH_ELASTIC_SHUTDOWN_TIMEOUT
              value: "$shutdown"
          ports:
            - containerPort: $port
          resources:
            limits:
              nvidia.com/gpu: $gpus_per_node
          volumeMounts:
            - name: data
              mountPath: $mount
            - name: shared-memory
              mountPath: /dev/shm
      volumes:
        - name: data
          persistentVolumeClaim:
            claimName: $claim
        - name: shared-memory
          emptyDir:
            medium: Memory
""")


def kubernetes(job: Job, *, image: str, claim: str, mount: str = "/data") -> str:
    """The text of a manifest: a headless service and an indexed job with one pod per node.

    Args:
        image: container image with herdlm and its ``torchrun`` on the path.
        claim: volume claim with recipe, tokens, tokenizer and output, mounted at ``mount`` in every pod.

    Raises:
        InputError: ``claim`` is not a valid name, or a path of the job is not below ``mount``.
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", claim):
        raise InputError(
            f"volume claim {claim!r} is not a valid Kubernetes name", "Use lower-case letters, digits and dashes"
        )
    for option in ("train", "run", "--tokens", "--tokenizer", "--out"):
        if option not in job.command:
            continue
        path = job.command[job.command.index(option) + 1]
        if not PurePosixPath(path).is_relative_to(mount):
            raise InputError(
                f"{path} is not on the volume mounted at {mount}", f"Give the path inside a pod: {mount}/..."
            )
    arguments = job.torchrun(endpoint=f"{job.name}-0.{job.name}:{PORT}", rdzv_id=job.name)
    return MANIFEST.substitute(
        name=job.name,
        nodes=job.nodes,
        gpus_per_node=job.gpus_per_node,
        image=json.dumps(image),
        claim=claim,
        mount=json.dumps(mount),
        port=PORT,
        backoff=job.restarts * job.nodes,
        processes=f"{job.nodes * job.gpus_per_node:,}",
        torchrun=_folded(arguments),
        grace=GRACE_SECONDS,
        shutdown=GRACE_SECONDS - 20,
    )


def _continued(arguments: Sequence[str]) -> str:
    """One shell command on several lines."""
    return " \\\n  ".join(_lines(arguments))


def _folded(arguments: Sequence[str]) -> str:
    """One command as a folded YAML scalar, in which a line break is a space."""
    return "\n              ".join(_lines(arguments)).replace("$(", "$$(")  # Kubernetes would expand $(NAME)


def _lines(arguments: Sequence[str]) -> list[str]:
    """One line per option, with its values."""
    lines: list[str] = []
    for argument in arguments:
        if lines and not argument.startswith("-"):
            lines[-1] += f" {argument}"
        else:
            lines.append(argument)
    return lines
