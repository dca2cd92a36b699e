"""Hardware files: names as tables spell them, a user's own on top, rings through a network's levels."""

import pytest

from herdlm.base.errors import InputError
from herdlm.plan.hardware import Level, Network, read_hardware


@pytest.mark.parametrize(
    "name, key",
    [
        ("H100-96GB-HBM2e SXM (500 W limit, 2.4 TB/s)", "h100-96gb-hbm2e"),
        ("H100-80GB", "h100"),
        ("H100 SXM5 80GB", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("A100-SXM4-40GB", "a100-40gb"),
        ("A100 80 GB", "a100"),
        ("A100", "a100"),
        ("H200-141GB", "h200"),
        ("DGX B200", "b200"),
        ("GB200 NVL72", "gb200"),
        ("DGX-GB300", "gb300"),
    ],
)
def test_gpus_are_found_as_tables_spell_them(name, key):
    assert read_hardware().find_gpu(name) == key


@pytest.mark.parametrize("name", ["", "TPU v5", "MI300X"])
def test_an_unknown_gpu_is_refused_with_those_known(name):
    with pytest.raises(InputError, match="h100"):
        read_hardware().find_gpu(name)


def test_every_gpu_has_a_machine_in_every_system():
    catalog = read_hardware()
    for gpu in catalog.gpu_names():
        for system in (None, *catalog.tables["systems"]):
            machine = catalog.machine(gpu, system)
            assert machine.gpu.peak("fp8") >= machine.gpu.peak("bf16") > 0
            assert machine.network.rate(1000, 8) > 0


def test_a_users_file_extends_and_overrides(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        '[gpus.h100]\nwatts = 650\n[gpus.mine]\nlike = "h100"\nmemory_gib = 94\n[links.nvlink4]\ngb_s = 400\n'
    )
    catalog = read_hardware(own)
    assert catalog.machine("h100").gpu.watts == 650
    mine = catalog.machine("mine")
    assert (mine.gpu.memory_gib, mine.gpu.bf16_tflops, mine.link.gb_s) == (94, 989.4, 400)
    assert catalog.find_gpu("H100-80GB") == "h100"  # a copy does not take the other's spellings


@pytest.mark.parametrize(
    "text",
    [
        "[gpu.x]\n",
        "[gpus.x]\nwatt = 3\n",
        "[gpus.x]\nwatts = 3\n",
        "[gpus.h100]\nmemory_gib = 0\n",
        '[gpus.x]\nlike = "y"\n',
        '[gpus.h100]\nsystem = "none"\n',
        "[gpus.h100.measured]\nflops = 3\n",
        "gpus = 3\n",
        "[gpus",
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text):
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(InputError):
        read_hardware(own)


def test_a_narrow_level_is_shared_by_the_rings_that_cross_it():
    levels = (Level("pod", 64, 1), Level("cluster", 0, 8))
    network = Network("n", "roce", 50, 1, levels)
    assert network.rate(8, 8) == 50e9  # inside a pod
    assert network.rate(128, 1) == 50e9  # one ring has the pod's whole uplink: 64 x 50 / 8
    assert network.rate(16, 8) == pytest.approx(50e9)  # eight rings share it
    assert network.rate(4, 64) == pytest.approx(50e9 / 8)  # sixty-four do
