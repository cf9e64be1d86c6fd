"""The constants of Adam as the compiled function reads them."""

from typing import NamedTuple

from fixgrad.network.adam import FRAME_BITS, GRADIENT_BITS, RECIPROCAL_FRAC, ROOT_BITS, SECOND_FRAC, STEP_BITS, STEP_FRAC
from fixgrad.network.moments import FIELD_BITS, MOMENT_BIAS, MOMENT_BITS
from fixgrad.network.recipe import MOMENTUM_FRAC, OPERAND_BITS
from fixgrad.network.update import TERM_BITS
from fixgrad.train.kernels.pointwise import AdamJob


class AdamWords(NamedTuple):
    """int64 each: `fixgrad.network.adam`, in the order of use; `limit` is the largest magnitude, `half` rounds a right shift."""

    inverse_batch: int
    gradient_exponent: int
    gradient_bits: int
    coupled: int
    coupled_left: int
    term_limit: int
    first_decay: int
    first_frac: int
    second_decay: int
    second_frac: int
    frame_bits: int
    moment_bits: int
    field_bits: int
    moment_bias: int
    root_bits: int
    reciprocal_frac: int
    rate: int
    epsilon: int
    epsilon_exponent: int
    step: int
    step_limit: int
    decay: int
    decay_left: int
    step_frac: int
    stored_limit: int
    operand_shift: int
    operand_half: int
    operand_limit: int


def adam_words(job: AdamJob) -> AdamWords:
    """The constants of a job."""
    constants, shifts = job.constants, job.shifts
    return AdamWords(
        constants.inverse_batch.mantissa,
        shifts.gradient,
        GRADIENT_BITS,
        constants.coupled.mantissa,
        shifts.coupled,
        _limit(TERM_BITS),
        constants.first,
        MOMENTUM_FRAC,
        constants.second,
        SECOND_FRAC,
        FRAME_BITS,
        MOMENT_BITS,
        FIELD_BITS,
        MOMENT_BIAS,
        ROOT_BITS,
        RECIPROCAL_FRAC,
        constants.rate.mantissa,
        constants.epsilon.mantissa,
        -constants.epsilon.shift,
        shifts.step,
        _limit(STEP_BITS),
        constants.decay.mantissa,
        shifts.decay,
        STEP_FRAC,
        _limit(job.formats.stored_bits),
        job.operand_shift,
        1 << job.operand_shift >> 1,
        _limit(OPERAND_BITS),
    )


def _limit(bits: int) -> int:
    return (1 << (bits - 1)) - 1
