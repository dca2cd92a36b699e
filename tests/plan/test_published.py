"""Rows of published measurements: their spellings, their gaps, and errors that stop no other row."""

import json

import pytest

from herdlm.base.errors import InputError
from herdlm.plan.constants import read_constants
from herdlm.plan.hardware import read_hardware
from herdlm.plan.published import network_gb_s, publication, published, read_rows, virtual_stages
from herdlm.plan.rows import predict_rows

ROW = {
    "id": "r1",
    "kind": "training",
    "gpu": "H100-80GB",
    "gpus": 64,
    "tp": 4,
    "cp": 2,
    "pp": 4,
    "vpp": 5,
    "dp": 2,
    "mbs": 1,
    "seq_len": 8192,
    "gbs_seqs": 128,
    "precision": "bf16",
    "recompute": "not printed (recipe default)",
    "software": "NeMo 25.02",
    "dp_kind": "DDP + distributed optimizer (overlap)",
    "layers": 80,
    "hidden": 8192,
    "ffn": 28_672,
    "heads": 64,
    "kv_heads": 8,
    "vocab": 128_256,
    "mlp": "gated (3 matrices)",
    "params": 70.55e9,
}


def changed(**values):
    return {**ROW, **values}


def only(row):
    (job,) = published(row).jobs
    return job


def test_a_whole_row_is_one_job():
    job, found = only(ROW), published(ROW)
    assert (job.layout.tp, job.layout.cp, job.layout.pp, job.layout.vpp, job.layout.dp) == (4, 2, 4, 5, 2)
    assert (job.layout.sharding, job.layout.schedule, job.layout.recompute) == ("zero1", "interleaved", "none")
    assert (job.micro_batches, job.tokens_per_step) == (64, 128 * 8192)
    assert (found.stack.name, found.known_stack, found.measured) == ("nemo", True, None)


@pytest.mark.parametrize(
    "values, what, expected",
    [
        ({"precision": "float8 linear (rowwise) + bf16"}, "precision", "fp8"),
        ({"precision": "fp8-cs"}, "precision", "fp8"),
        ({"precision": "amp bf16"}, "precision", "bf16"),
        ({"precision": None}, "precision", "bf16"),
        ({"recompute": "full (1 layer)"}, "recompute", "full"),
        ({"recompute": "selective"}, "recompute", "selective"),
        ({"recompute": None}, "recompute", "none"),
        ({"dp_kind": "FSDP FULL_SHARD"}, "sharding", "fsdp"),
        ({"dp_kind": "FSDP SHARD_GRAD_OP"}, "sharding", "zero2"),
        ({"dp_kind": "DeepSpeed ZeRO-2"}, "sharding", "zero2"),
        ({"dp_kind": "ZeRO-3"}, "sharding", "fsdp"),
        ({"dp_kind": "DDP"}, "sharding", "ddp"),
        ({"dp_kind": None}, "sharding", "zero1"),
        ({"technique": "FSDP + TP + async TP"}, "async_tp", True),
        ({"mbs": None, "grad_accum": 64}, "micro_batch", 1),
        ({"mbs": "2"}, "micro_batch", 2),
        ({"tp": None, "cp": None, "gpus": 8}, "tp", 1),
    ],
)
def test_spellings_and_gaps(values, what, expected):
    assert getattr(only(changed(**values)).layout, what) == expected


def test_what_a_row_leaves_open_is_several_jobs():
    row = changed(vpp="not printed (overlap on by default)", mbs=None)
    layouts = [job.layout for job in published(row).jobs]
    assert {layout.vpp for layout in layouts} == set(virtual_stages(80, 4)) == {1, 2, 4, 5, 10}
    assert {layout.micro_batch for layout in layouts} == {1, 2, 4}
    assert {layout.vpp for layout in (j.layout for j in published(changed(vpp=None, software="mine")).jobs)} == {1}


def test_a_count_of_parameters_tells_a_tied_head():
    assert not only(ROW).shape.tied
    assert only(changed(params=69.5e9)).shape.tied
    assert only(changed(mlp="plain (2 matrices)", params=None)).shape.mlp == "plain"


@pytest.mark.parametrize(
    "text, rate",
    [
        ("8x H100 NVLink per host; 400 Gb/s RDMA per GPU", 50),
        ("DGX H100: NVLink; 8x400 Gb/s InfiniBand", 50),
        ("EFA, 3.2 Tbps per node", 50),
        ("1600 Gb/s per node", 25),
        ("HDR 200 Gbps", 25),
        ("NVLink 600 GB/s; 8x200Gb/s InfiniBand", 25),
        ("NVSwitch, 900 GB/s", None),
        ("not printed", None),
        ("", None),
    ],
)
def test_a_rows_own_network(text, rate):
    assert network_gb_s(text) == rate


def test_rows_of_one_publication_belong_together():
    one, two = ("mosaicml/llm-foundry scripts/README.md (commit 8c), section 'H100', 30b", "mosaicml/llm-foundry x, 7b")
    assert publication(one) == publication(two) == "mosaicml/llm-foundry"
    assert publication("NVIDIA/dgxc tag v25.02.02 a.md, b") != publication("NVIDIA/dgxc tag v25.04.02 a.md, b")


@pytest.mark.parametrize(
    "values",
    [
        {"gpu": "abacus"},
        {"gpu": None},
        {"layers": None},
        {"hidden": "wide"},
        {"gpus": 0},
        {"gpus": 63},
        {"gpus": True},
        {"seq_len": -1},
        {"heads": 63},
        {"vpp": 500},
        {"kind": "microbench"},
        {"kind": None},
    ],
)
def test_a_bad_row_gives_an_error_with_its_id_and_the_others_go_on(values):
    bad = changed(id="bad", **values)
    first, second, third = predict_rows([ROW, bad, changed(id="r2")], read_hardware(), read_constants())
    assert (first["id"], second["id"], third["id"]) == ("r1", "bad", "r2")
    assert second["error"]
    assert "tokens_per_s_per_gpu" not in second
    assert first["tokens_per_s_per_gpu"] == third["tokens_per_s_per_gpu"]


def test_lines_that_are_no_rows_stay_in_their_places(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ROW)}\nnot json\n\n[1]\n{json.dumps(changed(id='r2'))}\n")
    found = read_rows(path)
    assert [isinstance(row, InputError) for row in found] == [False, True, True, False]
    assert "line 2" in str(found[1])
    with pytest.raises(InputError):
        read_rows(tmp_path / "none")
