"""The fit: it finds constants that made the rows, one row does not decide, intervals hold what they should."""

import math
import random
from dataclasses import replace

import pytest

from herdlm.plan.constants import read_constants
from herdlm.plan.fit_constants import PRIORS, fit_constants, predict_row, training_rows
from herdlm.plan.fit_kernels import fit_kernels
from herdlm.plan.hardware import read_hardware
from herdlm.plan.validate import Unseen, at_peak, constant_mfu, half_width, leave_out_publications, with_intervals
from tests.plan.test_published import ROW

CATALOG, CONSTANTS = read_hardware(), read_constants()


def rows_made_by(constants):
    """Rows of several publications, measured as ``constants`` say."""
    made = []
    for number, (tp, pp, gpus, precision, publication) in enumerate(
        (tp, pp, tp * pp * dp, precision, publication)
        for tp, pp in ((1, 1), (4, 1), (8, 4))
        for dp in (2, 16)
        for precision, publication in (("bf16", "a/a"), ("fp8", "b/b"), ("bf16", "c/c"))
    ):
        row = {**ROW, "id": f"r{number}", "tp": tp, "cp": 1, "pp": pp, "vpp": 1, "gpus": gpus, "precision": precision}
        row |= {"source": f"{publication} x", "software": {"a": "NeMo", "b": "NeMo", "c": "Megatron"}[publication[0]]}
        (found,) = training_rows([{**row, "tokens_per_s_per_gpu": 1.0}])
        made.append(replace(found, measured=predict_row(found, CATALOG, constants)))
    return made


def errors(rows, constants):
    return [abs(math.log(predict_row(row, CATALOG, constants) / row.measured)) for row in rows]


def test_the_fit_finds_what_made_the_rows():
    planted = replace(CONSTANTS, gemm_bf16=0.7, gemm_fp8=0.65, tp_hidden=0.3, stacks={"megatron": 0.9, "nemo": 1.0})
    rows = rows_made_by(planted)
    found = fit_constants(rows, CATALOG, CONSTANTS)
    assert max(errors(rows, found)) < 0.05 < max(errors(rows, CONSTANTS))
    assert sorted(errors(rows, found))[len(rows) // 2] < 0.02


def test_one_wrong_row_does_not_decide():
    rows = rows_made_by(CONSTANTS)
    spoiled = [replace(rows[0], measured=rows[0].measured * 3), *rows[1:]]
    assert sorted(errors(rows, fit_constants(spoiled, CATALOG, CONSTANTS)))[len(rows) // 2] < 0.03


def test_a_stack_with_few_rows_has_no_factor_of_its_own():
    rows = rows_made_by(CONSTANTS)
    assert set(fit_constants(rows, CATALOG, CONSTANTS).stacks) == {"megatron", "nemo"}
    few = [row for row in rows if row.stack.name == "nemo"] + [row for row in rows if row.stack.name == "megatron"][:1]
    assert set(fit_constants(few, CATALOG, CONSTANTS).stacks) == {"nemo"}


def test_publications_left_out_are_not_seen():
    rows = rows_made_by(CONSTANTS)
    unseen = leave_out_publications(rows, CATALOG, CONSTANTS)
    assert set(unseen.ours) == {row.id for row in rows} == set(unseen.baseline)
    ids = [row.id for row in rows if row.publication == "b/b"]
    others = [row for row in rows if row.publication != "b/b"]
    refit = fit_constants(others, CATALOG, CONSTANTS)
    for row in rows:
        if row.id in ids:
            expected = math.log(predict_row(row, CATALOG, refit) / row.measured)
            assert unseen.ours[row.id] == pytest.approx(expected)


def test_the_baseline_is_exact_where_its_assumptions_hold():
    shares = {"bf16": 0.4, "fp8": 0.3}
    rows = [
        replace(row, measured=shares[row.jobs[0].layout.precision] * at_peak(row, CATALOG))
        for row in rows_made_by(CONSTANTS)
    ]
    constant = constant_mfu(rows, CATALOG)
    assert all(constant(row) == pytest.approx(row.measured) for row in rows)
    slower = [replace(row, measured=row.measured * (0.8 if row.stack.name == "megatron" else 1)) for row in rows]
    constant = constant_mfu([row for row in slower if row.jobs[0].layout.precision == "bf16"], CATALOG)
    ratio = {row.stack.name: constant(row) / at_peak(row, CATALOG) for row in rows}
    assert ratio["megatron"] == pytest.approx(0.8 * ratio["nemo"])


def test_an_interval_holds_its_share_of_new_errors():
    draws, inside = random.Random(0), 0
    for _ in range(2000):
        width = half_width([draws.gauss(0, 0.1) for _ in range(31)])
        inside += abs(draws.gauss(0, 0.1)) <= width
    assert 0.78 < inside / 2000 < 0.87
    one = with_intervals(CONSTANTS, Unseen({"a": 0.1, "b": -0.3}, {}))
    assert one.interval["seen"] == 0.3 <= one.interval["other"]


def test_what_is_assumed_before_the_fit_is_in_range():
    for name, (middle, width, share) in PRIORS.items():
        assert hasattr(CONSTANTS, name)
        assert middle > 0 < width
        assert not share or middle < 1


def micro(what, **values):
    return {"kind": "microbench", "what": what, **values}


def test_kernels_are_fitted_on_their_rows():
    attention = [
        micro(
            what, seq_len=row, head_dim=size, causal=True, **{key: 989.4 * top * (size / 128) ** 0.25 / (1 + 400 / row)}
        )
        for what, key, top in (
            ("FlashAttention-2 forward+backward", "tflops", 0.3),
            ("attention forward", "tflops_fa2", 0.4),
            ("attention forward", "tflops_fa3", 0.6),
            ("attention forward", "tflops_cudnn", 0.5),
        )
        for row in (512, 2048, 16_384)
        for size in (64, 128)
    ]
    products = [
        micro("GEMM max", gpu="H100", precision="bf16", tflops=0.8 * 989.4),
        micro("GEMM max", gpu="A100", precision="bf16", tflops=0.9 * 312),
        micro("GEMM max", gpu="H200", precision="fp8_e4m3", tflops=0.7 * 1978.9),
    ]
    links = [
        micro("NCCL all-reduce: NVLink4 (8x H100, no SHARP)", busbw_GBps_out_of_place=360),
        micro("NCCL all-reduce: 400Gb RDMA, one NIC", busbw_GBps_out_of_place=45),
    ]
    found = fit_kernels([*attention, *products, *links, {"kind": "training"}], CATALOG)
    assert found["attention_ramp"] == pytest.approx(400, rel=0.02)
    assert found["attention_heads"] == pytest.approx(0.25, abs=0.02)
    assert found["attention_rate"] == pytest.approx({"flash2": 0.3, "flash3": 0.45, "cudnn": 0.375}, rel=0.02)
    assert (found["link"], found["network"]) == (0.8, 0.9)
    assert 0.85 < found["gemm_best"]["ampere-bf16"] < 0.9  # one row, drawn to the mean of all
