"""The update of a parameter by the rule that its state is for."""

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.network.adam import AdamConstants, AdamShifts, adam_update
from fixgrad.network.recipe import Optimiser, UpdateConstants
from fixgrad.network.state import Parameter, State
from fixgrad.network.step_table import UpdateScales
from fixgrad.network.update import TermShifts, update
from fixgrad.numbers import Rounding, magnitude_bits


def update_parameter(
    parameter: Parameter,
    gradient: NDArray[np.integer],
    scales: UpdateScales,
    constants: UpdateConstants | AdamConstants,
    rounding: Rounding,
    random: NDArray[np.uint32] | None,
) -> None:
    """Update stored codes and moments in place, and note the magnitude that the next operands need. Arguments as of `update`."""
    formats, shifts = parameter.formats, scales.shifts
    if isinstance(constants, AdamConstants):
        assert isinstance(shifts, AdamShifts)
        assert parameter.second_moment is not None
        moments = parameter.momentum, parameter.second_moment
        adapted = adam_update(parameter.stored, *moments, gradient, formats, shifts, constants, rounding, random)
        parameter.stored[...], parameter.momentum[...], parameter.second_moment[...] = adapted
    else:
        assert isinstance(shifts, TermShifts)
        updated = update(parameter.stored, parameter.momentum, gradient, formats, shifts, constants, rounding, random)
        parameter.stored[...], parameter.momentum[...] = updated
    parameter.operand_shift = scales.operand_shift
    parameter.magnitude = magnitude_bits(parameter.stored)


def check_moments(state: State, optimiser: Optimiser) -> None:
    """Refuse a state whose moments are not those of the optimiser.

    Raises:
        UsageError: there are such.
    """
    for name, parameter in state.parameters.items():
        if (parameter.second_moment is not None) != optimiser.is_adaptive:
            has = "no second moment" if parameter.second_moment is None else "a second moment"
            raise UsageError(f"{name} has {has}, but the recipe's optimiser is {optimiser}: call use_optimiser(state, optimiser)")


def use_optimiser(state: State, optimiser: Optimiser) -> None:
    """Give the parameters the moments of an optimiser: those that they have where it keeps such ones, else zeros."""
    for parameter in state.parameters.values():
        if (parameter.second_moment is not None) != optimiser.is_adaptive:
            parameter.momentum = np.zeros_like(parameter.momentum)
            parameter.second_moment = np.zeros_like(parameter.momentum) if optimiser.is_adaptive else None
            state.moment_steps = 0
