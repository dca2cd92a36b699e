"""Days, GPU-hours, energy and price of a run, each with an 80% interval.

A figure that is a product of independent ones has an interval whose logarithmic half-widths are theirs in quadrature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, hypot, log
from typing import Any, NamedTuple

from herdlm.base.errors import InputError
from herdlm.plan.hardware import Machine

HOURS_PER_DAY = 24.0
MARKET = 0.3  # share by which prices per GPU-hour differ from the hardware file's, up and down; assumed
# Watts of a host for each GPU: fans, processors, memory, network cards. A DGX H100 takes at most 10.2 kW with 8 GPUs of
# 700 W, which leaves 575 W. The lower figures are assumed.
HOST_WATTS = (350.0, 200.0, 575.0)
DRAWN = (1.0, 0.8, 1.0)  # share of a GPU's specified watts that training takes; the low end is assumed
OVERHEAD = (1.1, 1.05, 1.3)  # of the building: power usage effectiveness; assumed


class Figure(NamedTuple):
    """A value with its 80% interval."""

    value: float
    low: float
    high: float

    def times(self, *others: Figure | float) -> Figure:
        """The product with independent figures."""
        figures = [self, *(each if isinstance(each, Figure) else Figure(each, each, each) for each in others)]
        value = 1.0
        for each in figures:
            if not 0 < each.low <= each.value <= each.high:
                raise InputError(f"{each.low:g} to {each.high:g} around {each.value:g} is no interval", "Correct it")
            value *= each.value
        down = hypot(*(log(each.value / each.low) for each in figures))
        up = hypot(*(log(each.high / each.value) for each in figures))
        return Figure(value, value * exp(-down), value * exp(up))

    def inverse(self) -> Figure:
        """One over the figure."""
        return Figure(1 / self.value, 1 / self.high, 1 / self.low)

    def as_json(self) -> dict[str, float]:
        """As an object of value, low and high."""
        return self._asdict()


def figure(found: Mapping[str, Any]) -> Figure:
    """The figure of an object of value, low and high."""
    return Figure(float(found["value"]), float(found["low"]), float(found["high"]))


@dataclass(frozen=True, slots=True)
class Rates:
    """What a GPU takes and costs.

    Attributes:
        watts: of a GPU with its share of host and building.
        dollars: of a GPU-hour.
        co2: kilograms for a kilowatt-hour; None if it is not known.
    """

    watts: Figure
    dollars: Figure
    co2: float | None = None


def rates_of(
    machine: Machine,
    *,
    dollars: tuple[float, float] | None = None,
    pue: float | None = None,
    host_watts: float | None = None,
    co2: float | None = None,
) -> Rates:
    """The rates of a machine; what is given replaces the hardware file's and the assumed.

    Args:
        dollars: lowest and highest price of a GPU-hour.

    Raises:
        InputError: a rate is impossible.
    """
    if (pue is not None and pue < 1) or (host_watts is not None and host_watts < 0) or (co2 is not None and co2 < 0):
        raise InputError("watts and CO2 are 0 or more, and PUE is 1 or more", "Correct them")
    gpu = Figure(*(machine.gpu.watts * share for share in DRAWN))
    host = Figure(*(HOST_WATTS if host_watts is None else (host_watts,) * 3))
    together = Figure(*(a + b for a, b in zip(gpu, host, strict=True)))
    overhead = Figure(*(OVERHEAD if pue is None else (pue,) * 3))
    if dollars is None:
        middle = machine.gpu.dollars_per_hour
        price = Figure(middle, middle * (1 - MARKET), middle * (1 + MARKET))
    else:
        low, high = dollars
        if not 0 < low <= high:
            raise InputError(f"a price from {low:g} to {high:g} is no range", "Give a low and a high above 0")
        price = Figure((low + high) / 2, low, high)
    return Rates(together.times(overhead), price, co2)


def run_cost(
    *, steps: float, step_seconds: Figure, effective: Figure, gpus: int, spare_gpus: int, rates: Rates
) -> dict[str, Any]:
    """Days, GPU-hours, energy and price of ``steps``, as JSON.

    Args:
        effective: share of the time that is training (``herdlm.plan.reliability``).
        spare_gpus: that wait beside the ``gpus`` that train, and are paid for.
    """
    if not (steps > 0 and gpus > 0 and spare_gpus >= 0):
        raise InputError("a run has steps and GPUs", "Give positive numbers")
    days = step_seconds.times(steps / 86_400, effective.inverse())
    paid = days.times(HOURS_PER_DAY * (gpus + spare_gpus))
    energy = days.times(HOURS_PER_DAY * gpus / 1e6, rates.watts)  # a spare host's own is left out
    found = {
        "days": days.as_json(),
        "gpu_hours": days.times(HOURS_PER_DAY * gpus).as_json(),
        "paid_gpu_hours": paid.as_json(),
        "megawatt_hours": energy.as_json(),
        "megawatts": rates.watts.times(gpus / 1e6).as_json(),
        "dollars": paid.times(rates.dollars).as_json(),
        "dollars_per_gpu_hour": rates.dollars.as_json(),
    }
    if rates.co2:
        found["tonnes_co2"] = energy.times(rates.co2).as_json()
    return found
