"""Published measurements as jobs: rows of JSON that name things as their authors do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.hardware import Catalog, Machine
from herdlm.plan.job import Job, Layout, Precision, Recompute, Shape, Sharding
from herdlm.plan.stacks import Stack, sharding_in, stack_in, stack_named

Row = Mapping[str, Any]
SIZES = ("layers", "hidden", "ffn", "heads", "kv_heads", "vocab")
MOST_STAGES = 16  # virtual stages of a rank that are tried where a row does not name them


@dataclass(frozen=True, slots=True)
class Published:
    """A row as the jobs that it may mean: several where it names no micro-batch or number of virtual stages.

    Attributes:
        network_gb_s: of a GPU between nodes, where the row says so.
        measured: tokens per second and GPU.
        publication: what the row is from; rows of one publication have errors in common.
    """

    id: str
    jobs: tuple[Job, ...]
    stack: Stack
    known_stack: bool
    network_gb_s: float | None
    measured: float | None
    publication: str

    def machine(self, catalog: Catalog) -> Machine:
        """The machine of the row: its GPU in its usual system, with the row's own network."""
        found = catalog.machine(self.jobs[0].gpu)
        if self.network_gb_s is None:
            return found
        return replace(found, network=replace(found.network, gb_s=self.network_gb_s))


def read_rows(path: Path) -> list[Row | InputError]:
    """The rows of a file of JSON lines, and an error in place of a line that is none.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Give a file of JSON lines in UTF-8") from error
    found: list[Row | InputError] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            found.append(InputError(f"{path}, line {number}: no JSON: {error}"))
            continue
        found.append(row if isinstance(row, dict) else InputError(f"{path}, line {number}: no JSON object"))
    return found


def published(row: Row) -> Published:
    """The jobs of a training row.

    Raises:
        InputError: the row lacks what a job needs, or its values do not fit together.
    """
    text = " ".join(str(row.get(key) or "") for key in ("software", "technique", "stack", "framework"))
    named = stack_in(text) or stack_in(str(row.get("source") or ""))
    stack = _told(named or stack_named(None), f"{text} {row.get('notes') or ''}")
    jobs = tuple(_jobs(row, stack, named))
    measured = row.get("tokens_per_s_per_gpu")
    return Published(
        str(row.get("id")),
        jobs,
        stack,
        named is not None,
        network_gb_s(str(row.get("interconnect") or "")),
        float(measured) if isinstance(measured, int | float) and measured > 0 else None,
        publication(str(row.get("source") or "")),
    )


def network_gb_s(text: str, gpus_per_node: int = 8) -> float | None:
    """GB/s of a GPU's part of the network that a text names: "8x400 Gb/s", "400 Gb/s per GPU", "3.2 Tbps per node"."""
    found = re.search(r"(?:(\d+)\s*[x\u00d7]\s*)?(\d+(?:\.\d+)?)\s*([GgTt])b(?:it)?(?:ps|/s|\b)([^;,]*)", text)
    if found is None:
        return None
    count, number, unit, rest = found.groups()
    gigabits = float(number) * (1000 if unit in "Tt" else 1)
    if count:
        gigabits *= int(count) / gpus_per_node
    elif "gpu" not in rest.lower() and (gigabits >= 800 or "node" in rest or "host" in rest or "server" in rest):
        gigabits /= gpus_per_node
    return gigabits / 8


def publication(source: str) -> str:
    """The publication of a source: what stands before its table or row."""
    return re.split(r"[,\s(]", source.removeprefix("https://").strip() or "unknown", maxsplit=1)[0] + "".join(
        re.findall(r" tag (v[\d.]+)", source)[:1]
    )


def _told(stack: Stack, text: str) -> Stack:
    """The stack with what a row's own words say of its kernels."""
    lower = text.lower()
    if "compile" in lower or ("liger" in lower and "without liger" not in lower):
        stack = replace(stack, kernels="fused", loss_bytes=min(stack.loss_bytes, 12))
    if "flashattention-3" in lower or "flash attention 3" in lower or "fa3" in lower.split():
        stack = replace(stack, attention="flash3")
    if "rowwise" in lower or "row-wise" in lower:
        stack = replace(stack, fp8_casts=2 * stack.fp8_casts)
    return stack


def shape_of(row: Row) -> Shape:
    """The model of a row."""
    found = {name: _count(row, name) for name in SIZES if row.get(name) is not None}
    if "kv_heads" not in found and "heads" in found:
        found["kv_heads"] = found["heads"]
    if "ffn" not in found and "hidden" in found:
        found["ffn"] = 4 * found["hidden"]
    if missing := [name for name in SIZES if name not in found]:
        raise InputError(f"row {row.get('id')} has no {', '.join(missing)}", "Give the model's sizes")
    gated = str(row.get("mlp") or "gated").lower()
    plain = any(word in gated for word in ("plain", "2 matrices", "gelu")) and "geglu" not in gated
    sizes: dict[str, Any] = {name: found[name] for name in SIZES}
    untied = Shape(**sizes, mlp="plain" if plain else "gated")
    given = row.get("params")
    params = float(given) if isinstance(given, int | float) else 0.0
    known = params > 0
    # A count of parameters may leave no room for a second matrix of the vocabulary.
    tied = known and params < untied.parameters - untied.embedding_parameters / 2
    return replace(untied, tied=bool(tied))


def _jobs(row: Row, stack: Stack, named: Stack | None) -> list[Job]:
    shape = shape_of(row)
    seq_len, gpus = _count(row, "seq_len"), _count(row, "gpus")
    tp, cp, pp = (_count(row, name, 1) for name in ("tp", "cp", "pp"))
    if gpus % (tp * cp * pp):
        raise InputError(f"row {row.get('id')}: {gpus} GPUs are not a multiple of tp x cp x pp", "Correct the row")
    dp = gpus // (tp * cp * pp)
    tokens = row.get("gbs_tokens") or (row.get("gbs_seqs") or 0) * seq_len
    rows = max(round(float(tokens) / seq_len), 1) if tokens else dp * (_given(row, "mbs") or 1) * (pp if pp > 1 else 1)
    sharding, layout = _sharding(row, stack, pp), f"{row.get('technique') or ''} {row.get('dp_kind') or ''}".lower()
    replicate = _given(row, "dp_replicate") or 1
    if dp % replicate:
        replicate = 1
    if rows % dp:  # a published batch that its ranks do not divide is as near as the table was rounded
        rows = max(round(rows / dp), 1) * dp
    micros = _micro_batches(row, rows // dp, pp)
    found = []
    for micro, vpp in ((m, v) for m in micros for v in _virtual_stages(row, shape, pp, named)):
        made = Layout(
            tp=tp,
            cp=cp,
            pp=pp,
            vpp=vpp,
            dp_shard=dp // replicate,
            dp_replicate=replicate,
            micro_batch=micro,
            schedule="interleaved" if vpp > 1 else "zero-bubble" if "zero bubble" in layout and pp > 1 else "1f1b",
            recompute=_recompute(row),
            precision=precision_of(row),
            reshard_after_forward=sharding == "fsdp" and pp == 1 and "grad_op" not in layout,
            offload="activations" if "offload" in f"{row.get('recompute')} {layout}".lower() else "none",
            sharding=sharding,
            async_tp="async" in layout and "tp" in layout,
        )
        found.append(Job(shape, made, gpus, str(row.get("gpu")), seq_len, rows * seq_len, stack.name))
    return found


def _micro_batches(row: Row, rows: int, pp: int) -> list[int]:
    """Rows of a micro-batch that a row may mean, of ``rows`` on a data-parallel rank."""
    given = _given(row, "mbs")
    if given is None and (steps := _given(row, "grad_accum")):
        given = max(rows // steps, 1)
    if given is not None:
        while rows % given:
            given -= 1
        return [given]
    return [each for each in ((1, 2, 4) if pp > 1 else (1, 2, 4, 8)) if rows % each == 0]


def _virtual_stages(row: Row, shape: Shape, pp: int, named: Stack | None) -> list[int]:
    """Virtual stages of a rank that a row may mean."""
    if pp == 1:
        return [1]
    given = row.get("vpp")
    if isinstance(given, int | float) and given >= 1:
        return [int(given)]
    text = f"{row.get('technique') or ''} {given or ''}".lower()
    if given is None and "interleaved" not in text and (named is None or named.family != "megatron"):
        return [1]
    if "1f1b" in text and "interleaved" not in text:
        return [1]
    return virtual_stages(shape.layers, pp)


def virtual_stages(layers: int, pp: int) -> list[int]:
    """Numbers of virtual stages that give all stages as many layers, embedding and head counted as layers or not."""
    most = min((layers + 2) // pp, MOST_STAGES)
    return [v for v in range(1, most + 1) if layers % (pp * v) == 0 or (layers + 2) % (pp * v) == 0] or [1]


def _sharding(row: Row, stack: Stack, pp: int) -> Sharding:
    return sharding_in(str(row.get("dp_kind") or "")) or stack.sharding


def _recompute(row: Row) -> Recompute:
    text = str(row.get("recompute") or "none").lower()
    if "selective" in text:
        return "selective"
    return "full" if text.startswith(("full", "true", "yes", "all", "block", "uniform")) else "none"


def precision_of(row: Row) -> Precision:
    """The precision of a row's products; FP4, for which the planner has no rates, counts as FP8."""
    text = str(row.get("precision") or "bf16").lower()
    return "fp8" if any(word in text for word in ("fp8", "float8", "f8", "fp4")) else "bf16"


def _given(row: Row, key: str) -> int | None:
    value = row.get(key)
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        return None
    return int(value)


def _count(row: Row, key: str, default: int | None = None) -> int:
    value = row.get(key)
    if value is None and default is not None:
        return default
    found = _given(row, key)
    if found is None:
        raise InputError(f"row {row.get('id')}: {key} is {value!r}", "Give a number of 1 or more")
    return found
