"""GPUs, links and networks from data files, which a user's own file extends or overrides."""

from herdlm.plan.hardware.files import Catalog, read_hardware
from herdlm.plan.hardware.parts import Gpu, Level, Link, Machine, Measured, Network

__all__ = ["Catalog", "Gpu", "Level", "Link", "Machine", "Measured", "Network", "read_hardware"]
