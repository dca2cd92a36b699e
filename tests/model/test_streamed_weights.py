"""Weights written row by row: what the safetensors library reads back is what was given, in whole files and shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from herdlm.base.errors import HerdError, InputError
from herdlm.model.streamed_weights import Layout, StreamedWeights
from herdlm.model.weights import open_weights

TYPES = [torch.float8_e4m3fn, torch.bfloat16, torch.float32]


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7), st.sampled_from(TYPES)), min_size=1, max_size=6),
    limit=st.sampled_from([1, 60, 10**9]),
    rows=st.integers(1, 4),
)
def test_any_tensors_in_any_order_of_rows(
    shapes: list[tuple[int, int, torch.dtype]], limit: int, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    tensors = {
        f"t{i}": torch.randn(a, b, generator=torch.Generator().manual_seed(i)).to(dtype)
        for i, (a, b, dtype) in enumerate(shapes)
    }
    layouts = {name: Layout(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with StreamedWeights(folder, layouts, limit) as file:
        for name in reversed(tensors):
            for first in reversed(range(0, len(tensors[name]), rows)):
                file.write(name, first, tensors[name][first : first + rows])
    found = {name: stored.read() for name, stored in open_weights(folder).items()}
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
    assert file.bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert len(list(folder.glob("model*.safetensors"))) == (1 if limit > 60 else max(1, len(_shards(tensors, limit))))


def _shards(tensors: dict[str, torch.Tensor], limit: int) -> list[int]:
    sizes: list[int] = []
    for tensor in tensors.values():
        if sizes and sizes[-1] + tensor.nbytes <= limit:
            sizes[-1] += tensor.nbytes
        else:
            sizes.append(tensor.nbytes)
    return sizes


def test_an_index_names_the_shard_of_each_tensor(tmp_path: Path) -> None:
    layouts = {"b": Layout(torch.float32, (4, 2)), "a": Layout(torch.float32, (3,))}
    with StreamedWeights(tmp_path, layouts, 32) as file:
        file.write("b", 0, torch.ones(4, 2))
        file.write("a", 0, torch.zeros(3))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 44}
    assert index["weight_map"] == {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}
    assert load_file(tmp_path / "model-00002-of-00002.safetensors")["a"].tolist() == [0, 0, 0]


def test_a_tensor_cut_short_is_noticed_and_no_file_gets_its_name(tmp_path: Path) -> None:
    writer = StreamedWeights(tmp_path, {"a": Layout(torch.float32, (3, 1))}, 100)
    with pytest.raises(AssertionError, match="a was not written whole"), writer as file:
        file.write("a", 0, torch.zeros(2, 1))
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_folder_with_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="holds weights already"):
        StreamedWeights(tmp_path, {"a": Layout(torch.float32, (1,))}, 100)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with StreamedWeights(tmp_path, {"a": Layout(torch.float32, (50_000,))}, 10**9) as file:
        file.write("a", 0, torch.zeros(50_000))
    (tmp_path / "model.safetensors").unlink()
    writer = StreamedWeights(tmp_path, {"a": Layout(torch.float32, (50_000,))}, 10**9)
    monkeypatch.setattr(writer, "_partial", lambda number: full)
    with pytest.raises(HerdError, match="cannot be written"), writer as file:
        file.write("a", 0, torch.zeros(50_000))
