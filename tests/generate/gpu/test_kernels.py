"""Every kernel is compiled for a Hopper GPU as it is launched for real shapes; none is at hand, none is needed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="comes with torch on CUDA")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted here, not compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from herdlm.generate.gpu import launches as gpu_launches  # noqa: E402
from herdlm.generate.gpu.plan import AttentionPlan  # noqa: E402

NAMES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float8_e4m3fn: "fp8e4nv",
}
SHARED_BYTES = 227 * 2**10  # of a block on Hopper
DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
KERNELS = [name for name in vars(gpu_launches) if name.endswith("_kernel")]


class Compiled:
    """Stands for a kernel: a launch compiles it for the arguments it is given, as Triton's own launcher would."""

    def __init__(self, kernel: Any, found: dict[str, tuple[str, bytes, int]]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **options: int) -> None:
            signature, constants, attributes = {}, {}, {}
            for index, (parameter, value) in enumerate(zip(self.kernel.params, arguments, strict=True)):
                multiple = False
                if parameter.is_constexpr:
                    signature[parameter.name], constants[(index,)] = "constexpr", value
                elif isinstance(value, torch.Tensor):
                    signature[parameter.name], multiple = f"*{NAMES[value.dtype]}", True
                elif isinstance(value, int):
                    signature[parameter.name], multiple = "i32", value % 16 == 0
                else:
                    signature[parameter.name] = "fp32"
                if multiple:
                    attributes[(index,)] = [["tt.divisibility", 16]]
            source = ASTSource(self.kernel, signature, constants, attributes)
            built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            self.found[self.kernel.__name__] = (built.asm["ptx"], built.asm["cubin"], built.metadata.shared)

        return launch


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, bytes, int]]:
    """Assembly, binary and shared memory of what has been launched."""
    found: dict[str, tuple[str, bytes, int]] = {}
    for name in KERNELS:
        monkeypatch.setattr(gpu_launches, name, Compiled(getattr(gpu_launches, name), found))
    return found


def launch_all(heads: int, kv_heads: int, size: int, dim: int, ffn: int, dtype: torch.dtype, tokens: int) -> None:
    def there(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=of, device="meta")

    joined, pages, out = there(tokens, heads + 2 * kv_heads, size), there(99, 2 * kv_heads, 16, size), there(1, 1, 1)
    numbers = {"slots": (tokens,), "tables": (64 * tokens,), "width": (1,), "decoding": (tokens, 3), "prompts": (5, 4)}
    plan = AttentionPlan(keys=0, **{name: there(*shape, of=torch.int32) for name, shape in numbers.items()})
    gpu_launches.rotate_and_write(joined, there(tokens, 1, size // 2, of=torch.complex64), plan.slots, pages)
    for plan.keys in (64, 8192):
        gpu_launches.attend_decoding(joined, pages, plan, out)
    gpu_launches.attend_prompts(joined, pages, plan, out)
    gpu_launches.swiglu(there(tokens, 2 * ffn))
    gpu_launches.quantize_rows(there(tokens, dim), 1200.0)
    gpu_launches.quantize_rows(there(tokens, 2 * ffn), 1200.0, joined=True)


SHAPES = {
    "8B": (32, 8, 128, 4096, 14_336),
    "70B": (64, 8, 128, 8192, 28_672),
    "1B": (32, 8, 64, 2048, 8192),
    "small": (3, 1, 16, 48, 100),
}


@pytest.mark.parametrize("tokens", [1, 256])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_compile_for_hopper_without_spilling(shape, tokens, found, tmp_path):
    launch_all(*SHAPES[shape], torch.bfloat16, tokens)
    assert set(found) == set(KERNELS)
    for name, (_, binary, shared) in found.items():
        assert shared <= SHARED_BYTES, name
        (tmp_path / "kernel").write_bytes(binary)
        command = [str(DUMP), "-res-usage", str(tmp_path / "kernel")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", said), f"{name}: {said}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_kernels_compile_for_every_type_and_head_size(size, dtype, found):
    launch_all(8, 2, size, 256, 512, dtype, 4)
    assert all(shared <= SHARED_BYTES for *_, shared in found.values())


def test_memory_is_read_in_pieces_of_16_bytes_and_multiplied_by_matrix_units(found):
    launch_all(*SHAPES["8B"], torch.bfloat16, 64)
    for name in ("attend_decoding_kernel", "attend_prompts_kernel"):
        assembly, *_ = found[name]
        asynchronous = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^\]]*\], \[[^\]]*\], (\w+)", assembly)
        assert asynchronous.count("0x10") >= 16  # keys and values; block tables are read by 4
    assert "wgmma.mma_async" in found["attend_prompts_kernel"][0]
    assert "mma.sync" in found["attend_decoding_kernel"][0]
    assert "cvt.rn.satfinite.e4m3x2.f32" in found["quantize_kernel"][0]
    for name in ("swiglu_kernel", "rotate_and_write_kernel", "quantize_kernel"):
        assert re.search(r"ld\.global\S*\.v4\.b32", found[name][0]), name
