"""NORMALISE: the scalars of batch normalisation, channel by channel, as `fixgrad.network.normalisation` defines them."""

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.elementwise_instructions import NORMALISE_EVALUATION, NORMALISE_FF, NORMALISE_NG
from fixgrad.machine.encoding import Instruction
from fixgrad.network.normalisation import (
    LARGEST_COUNT,
    PRODUCT_FRAC,
    ROOT_FRAC,
    Coefficients,
    ErrorSums,
    InverseRoot,
    Moments,
    Running,
    RunningShifts,
    backward_map,
    forward_map,
    gamma_gradient,
    inverse_root,
    moments,
    moments_of,
    moved,
)
from fixgrad.numbers.accumulate import wrap32
from fixgrad.simulate.functional.chip import Chip
from fixgrad.simulate.functional.elementwise import check_unit, record_fields, record_place
from fixgrad.simulate.functional.fault import Fault

Ints = NDArray[np.int64]


class _Records:
    """The records of an instruction's channels, by field."""

    def __init__(self, chip: Chip, i: Instruction) -> None:
        self._fields = record_fields(chip, i.record, i.channels)

    def get(self, *names: str) -> list[Ints]:
        return [self._fields[:, record_place(name)].copy() for name in names]

    def put(self, **values: Ints | int) -> None:
        for name, column in values.items():
            self._fields[:, record_place(name)] = column


def normalise(chip: Chip, i: Instruction) -> None:
    """See the instruction."""
    check_unit(chip)
    if not 1 <= i.count <= LARGEST_COUNT:
        raise Fault(f"count is {i.count}: 1 to {LARGEST_COUNT} elements of a channel")
    param, records = chip.entry(i.param), _Records(chip, i)
    gamma = chip.integers_at(i.gamma, "<i4", i.channels).astype(np.int64)
    # The one left shift of gamma * root stands for scales that the host knows: here gamma is taken as an integer.
    frac = param["factor_left"] - PRODUCT_FRAC + ROOT_FRAC
    if i.mode == NORMALISE_NG:
        _backward(chip, i, records, gamma, frac)
    elif i.mode in (NORMALISE_FF, NORMALISE_EVALUATION):
        _forward(chip, i, records, gamma, frac, param)
    else:
        raise Fault(f"mode is {i.mode}: 0, 1 or 2")


def _forward(chip: Chip, i: Instruction, records: _Records, gamma: Ints, frac: int, param: dict[str, int]) -> None:
    beta = chip.integers_at(i.beta, "<i4", i.channels).astype(np.int64)
    running = Running(*records.get("running_mean", "running_variance"))
    left = RunningShifts(param["mean_left"], param["variance_left"])
    if i.mode == NORMALISE_FF:
        total, product = records.get("total", "product")
        seen = moments(total, product, i.count)
        running = moved(running, seen, i.count, i.average, left)
        records.put(running_mean=running.mean, running_variance=running.variance)
    else:
        seen = moments_of(running, left)
    if not 1 <= param["epsilon"] <= 1 << 40:
        raise Fault(f"epsilon is {param['epsilon']}: 1 to 2**40")
    inverse = inverse_root(seen.variance, param["epsilon"])
    mapped = forward_map(Coefficients(gamma, 0, beta, frac + PRODUCT_FRAC - param["offset_left"]), seen, inverse, frac)
    records.put(a=mapped.factor, b=0, c=mapped.offset, mean=seen.mean)
    records.put(root=inverse.root, half=inverse.half, spread=inverse.variance)


def _backward(chip: Chip, i: Instruction, records: _Records, gamma: Ints, frac: int) -> None:
    total, product, mean, root, half, spread = records.get("total", "product", "mean", "root", "half", "spread")
    if spread.min(initial=1) < 1:
        raise Fault("a record holds no inverse root: NORMALISE of FF comes first")
    seen, inverse, sums = Moments(mean, mean), InverseRoot(root, half, spread), ErrorSums(total, product)
    mapped = backward_map(Coefficients(gamma, 0, gamma, 0), seen, inverse, sums, i.count, frac)
    records.put(a=mapped.by_error, b=mapped.by_code, c=mapped.offset)
    chip.integers_at(i.gamma_gradient, "<i4", i.channels)[:] = gamma_gradient(seen, inverse, sums)
    chip.integers_at(i.beta_gradient, "<i4", i.channels)[:] = wrap32(total).values
