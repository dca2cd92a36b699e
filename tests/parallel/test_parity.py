"""Every layout against one process from the same seed: loss, every gradient, gradient norm and what is logged.

``python -m pytest tests/parallel -m slow -s`` prints the differences of all layouts; docs/parallel.md has the table.
"""

import pytest

from tests.parallel.processes import launch

TOLERANCE = {"float64": 1e-12, "float32": 3e-5}
BIASES = dict(attention_bias=True, mlp_bias=True)
INTERLEAVED = dict(pipeline_schedule="interleaved", stages_per_rank=2)

QUICK = {  # on 4 processes: every dimension and every objective
    "tp2 dp2": dict(layout=dict(tp=2)),
    "cp2 dp2": dict(layout=dict(cp=2)),
    "pp2 tp2, biases": dict(layout=dict(pp=2, tp=2), shape=BIASES),
    "tp2 dp2, dpo": dict(layout=dict(tp=2), objective="dpo", steps=1),
    "cp2 dp2, reward": dict(layout=dict(cp=2), objective="reward", steps=1),
    "dp4, one row": dict(layout={}, rows=(1,)),
    "pp2 cp2, distill": dict(layout=dict(pp=2, cp=2), objective="distill", steps=1),
    "tp2 dp2, kto, lora": dict(layout=dict(tp=2), objective="kto", steps=1, lora=3),
    "cp2 dp2, norm": dict(layout=dict(cp=2), objective="norm", steps=1),
}
FOUR = {
    "dp4": dict(layout={}),
    "pp2 dp2": dict(layout=dict(pp=2)),
    "tp2 dp2, float32": dict(layout=dict(tp=2), dtype="float32", steps=1),
    "tp2 dp2, reward": dict(layout=dict(tp=2), objective="reward"),
    "tp2 dp2, distill": dict(layout=dict(tp=2), objective="distill", steps=1),
    "tp4": dict(layout=dict(tp=4)),
    "cp4": dict(layout=dict(cp=4)),
    "pp4": dict(layout=dict(pp=4)),
    "cp4, by documents": dict(layout=dict(cp=4), mask_below=0),
    "hsdp 2x2": dict(layout=dict(dp_replicate=2)),
    "replicas alone": dict(layout=dict(dp_replicate=4)),
    "tp2 cp2": dict(layout=dict(tp=2, cp=2)),
    "pp2 cp2": dict(layout=dict(pp=2, cp=2)),
    "dp4, resharded": dict(layout=dict(reshard_after_forward=True)),
    "pp2 dp2, resharded": dict(layout=dict(pp=2, reshard_after_forward=True)),
    "pp2 tp2": dict(layout=dict(pp=2, tp=2)),
    "tp2 dp2, biases of Qwen2": dict(layout=dict(tp=2), shape=dict(family="qwen2")),
    "dp4, resharded, biases": dict(layout=dict(reshard_after_forward=True), shape=BIASES),
    "pp2 tp2, zero-bubble, biases": dict(
        layout=dict(pp=2, tp=2, pipeline_schedule="zero-bubble"), shape=BIASES, rows=(2, 2, 2, 2)
    ),
    "pp2 dp2, zero-bubble, biases": dict(
        layout=dict(pp=2, pipeline_schedule="zero-bubble"), shape=BIASES, rows=(2, 2, 2, 2)
    ),
    "tp2 dp2, tied embeddings": dict(layout=dict(tp=2), shape=dict(tied_embeddings=True)),
    "dp4, tied embeddings": dict(layout={}, shape=dict(tied_embeddings=True)),
    "tp4, another uneven vocabulary": dict(layout=dict(tp=4), shape=dict(vocab_size=258)),
    "pp2 dp2, 7 micro-batches": dict(layout=dict(pp=2), rows=(2, 1, 2, 2, 3, 2, 1)),
    "pp4, 3 micro-batches": dict(layout=dict(pp=4), rows=(1, 1, 1)),
    "pp2 dp2, interleaved, 5 micro-batches": dict(layout=dict(pp=2) | INTERLEAVED, rows=(2, 1, 2, 2, 3)),
    "pp2 tp2, interleaved, 3 micro-batches": dict(layout=dict(pp=2, tp=2) | INTERLEAVED, rows=(2, 1, 2)),
    "pp2 dp2, last stage shorter": dict(layout=dict(pp=2, layers_per_stage=[3, 1])),
    "pp2 dp2, 6 layers of 4 stages": dict(layout=dict(pp=2) | INTERLEAVED, shape=dict(layers=6), rows=(2, 2, 2)),
    "pp2 dp2, zero-bubble": dict(layout=dict(pp=2, pipeline_schedule="zero-bubble"), rows=(2, 2, 2, 2)),
    "pp2 tp2, zero-bubble": dict(layout=dict(pp=2, tp=2, pipeline_schedule="zero-bubble"), rows=(2, 2, 2, 2)),
    "pp4, zero-bubble": dict(layout=dict(pp=4, pipeline_schedule="zero-bubble"), rows=(1, 2, 1, 1, 2, 1)),
    "pp2 dp2, rows per micro-batch": dict(layout=dict(pp=2, rows_per_micro_batch=1), rows=(7,)),
    "dp4, dpo": dict(layout={}, objective="dpo"),
    "pp2 tp2, dpo": dict(layout=dict(pp=2, tp=2), objective="dpo"),
    "cp2 tp2, dpo": dict(layout=dict(cp=2, tp=2), objective="dpo"),
    "pp2 tp2, kto": dict(layout=dict(pp=2, tp=2), objective="kto"),
    "cp2 dp2, kto": dict(layout=dict(cp=2), objective="kto"),
    "dp4, simpo": dict(layout={}, objective="simpo"),
    "pp2 dp2, apo": dict(layout=dict(pp=2), objective="apo"),
    "dp4, lora": dict(layout={}, lora=3),
    "hsdp 2x2, lora": dict(layout=dict(dp_replicate=2), lora=3),
    "tp4, lora": dict(layout=dict(tp=4), lora=3),
    "pp2 tp2, lora": dict(layout=dict(pp=2, tp=2), lora=3),
    "pp2 cp2, lora": dict(layout=dict(pp=2, cp=2), lora=3),
    "cp2 dp2, reward, lora": dict(layout=dict(cp=2), objective="reward", lora=3),
    "tp2 dp2, tied embeddings, lora": dict(layout=dict(tp=2), shape=dict(tied_embeddings=True), lora=3),
    "dp4, reward": dict(layout={}, objective="reward"),
    "pp2 dp2, reward": dict(layout=dict(pp=2), objective="reward"),
    "cp2 dp2, distill": dict(layout=dict(cp=2), objective="distill"),
    "pp2 dp2, distill": dict(layout=dict(pp=2), objective="distill"),
    "pp2 tp2, distill": dict(layout=dict(pp=2, tp=2), objective="distill"),
    "tp2 cp2, distill": dict(layout=dict(tp=2, cp=2), objective="distill"),
    "tp4, distill": dict(layout=dict(tp=4), objective="distill"),
    "hsdp 2x2, distill": dict(layout=dict(dp_replicate=2), objective="distill"),
    "dp4, one row, distill": dict(layout={}, objective="distill", rows=(1,)),
    "tp2 dp2, distill, one row": dict(layout=dict(tp=2), objective="distill", rows=(1,)),
    "tp2 dp2, distill from the whole vocabulary": dict(layout=dict(tp=2), objective="distill, full"),
    "pp2 dp2, distill, rows per micro-batch": dict(
        layout=dict(pp=2, rows_per_micro_batch=1), objective="distill", rows=(7,)
    ),
    "pp2 tp2, zero-bubble, distill": dict(
        layout=dict(pp=2, tp=2, pipeline_schedule="zero-bubble"), objective="distill", rows=(2, 2, 2, 2)
    ),
    "tp2 dp2, distill, float32": dict(layout=dict(tp=2), objective="distill", dtype="float32", steps=1),
    "tp2 cp2, layer checkpointing": dict(layout=dict(tp=2, cp=2, activation_checkpointing="layer")),
    "tp2 dp2, selective checkpointing": dict(layout=dict(tp=2, activation_checkpointing="selective")),
    "dp4, resharded, layer checkpointing": dict(
        layout=dict(reshard_after_forward=True, activation_checkpointing="layer")
    ),
    "pp2 tp2, zero-bubble, layer checkpointing": dict(
        layout=dict(pp=2, tp=2, pipeline_schedule="zero-bubble", activation_checkpointing="layer")
    ),
    "dp4, float32": dict(layout={}, dtype="float32"),
    "hsdp 2x2, float32": dict(layout=dict(dp_replicate=2), dtype="float32"),
    "cp2 dp2, float32": dict(layout=dict(cp=2), dtype="float32"),
    "pp2 dp2, zero-bubble, float32": dict(layout=dict(pp=2, pipeline_schedule="zero-bubble"), dtype="float32"),
}
EIGHT = {
    "dp8": dict(layout={}),
    "hsdp 2x4": dict(layout=dict(dp_replicate=2)),
    "tp2 cp2 dp2": dict(layout=dict(tp=2, cp=2)),
    "tp2 pp2 dp2": dict(layout=dict(tp=2, pp=2)),
    "cp2 pp2 dp2": dict(layout=dict(cp=2, pp=2)),
    "tp2 cp2 pp2": dict(layout=dict(tp=2, cp=2, pp=2)),
    "tp2 pp2 dp2, interleaved": dict(layout=dict(tp=2, pp=2) | INTERLEAVED, rows=(2, 3, 2)),
    "tp2 pp2 dp2, zero-bubble": dict(layout=dict(tp=2, pp=2, pipeline_schedule="zero-bubble"), rows=(2, 3, 2, 2)),
    "tp2 hsdp 2x2": dict(layout=dict(tp=2, dp_replicate=2)),
    "tp2 cp2 dp2, float32": dict(layout=dict(tp=2, cp=2), dtype="float32"),
    "tp2 pp2 dp2, float32": dict(layout=dict(tp=2, pp=2), dtype="float32"),
    "tp2 cp2 dp2, dpo": dict(layout=dict(tp=2, cp=2), objective="dpo"),
    "tp2 cp2 dp2, distill": dict(layout=dict(tp=2, cp=2), objective="distill"),
    "tp2 pp2 dp2, distill": dict(layout=dict(tp=2, pp=2), objective="distill"),
    "tp2 cp2 pp2, reward": dict(layout=dict(tp=2, cp=2, pp=2), objective="reward"),
}
SIXTEEN = {
    "tp2 cp2 pp2 dp2": dict(layout=dict(tp=2, cp=2, pp=2)),
    "tp2 cp2 pp2 dp2, interleaved": dict(layout=dict(tp=2, cp=2, pp=2) | INTERLEAVED, rows=(2, 3, 2)),
    "tp2 cp2 pp2 dp2, zero-bubble": dict(layout=dict(tp=2, cp=2, pp=2, pipeline_schedule="zero-bubble"), rows=(2, 3)),
    "tp2 cp2 pp2 dp2, dpo": dict(layout=dict(tp=2, cp=2, pp=2), objective="dpo"),
    "tp2 cp2 pp2 dp2, distill": dict(layout=dict(tp=2, cp=2, pp=2), objective="distill"),
    "tp2 cp2 pp2 dp2, float32": dict(layout=dict(tp=2, cp=2, pp=2), dtype="float32"),
}


def check(processes, cases):
    found = launch("tests.parallel.parity:compare_all", processes, cases, seconds=1200)
    print(f"\n{processes} processes, largest relative difference from one process in any step:")
    for name, seen in found.items():
        print(
            f"| {name} | {seen['loss']:.1e} | {seen['norm']:.1e} | {seen['grad']:.1e} | {seen['logged']:.1e} "
            f"| {seen['seconds']:.1f} s |"
        )
    assert found.keys() == cases.keys()
    wrong = {
        name: seen
        for name, seen in found.items()
        for tolerance in [TOLERANCE[cases[name].get("dtype", "float64")]]
        if not max(seen[key] for key in ("loss", "norm", "grad", "logged")) < tolerance
    }
    assert not wrong


def test_four_processes():
    check(4, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    ("processes", "cases"), [(4, FOUR), (8, EIGHT), (16, SIXTEEN)], ids=["four", "eight", "sixteen"]
)
def test_more_layouts(processes, cases):
    check(processes, cases)
