"""The arithmetic, defined once: formats, rounding, accumulators, random bits, exact products."""

from fixgrad.numbers.accumulate import ACCUMULATOR_BITS, Accumulated, magnitude_bits, wrap32
from fixgrad.numbers.convolution import (
    ConvGeometry,
    conv_forward,
    conv_forward_reference,
    conv_input_gradient,
    conv_input_gradient_reference,
    conv_weight_gradient,
    conv_weight_gradient_reference,
)
from fixgrad.numbers.counter_hash import StreamKey, hash32, permutation, stream_key, uniform_below
from fixgrad.numbers.format import Format, Overflow
from fixgrad.numbers.gemm import matmul, matmul_reference
from fixgrad.numbers.rounding import (
    MAX_SHIFT,
    Rounding,
    align,
    bit_length,
    requantise,
    saturate,
    shift_nearest,
    shift_round,
    shift_stochastic,
)

__all__ = [
    "ACCUMULATOR_BITS",
    "MAX_SHIFT",
    "Accumulated",
    "ConvGeometry",
    "Format",
    "Overflow",
    "Rounding",
    "StreamKey",
    "align",
    "bit_length",
    "conv_forward",
    "conv_forward_reference",
    "conv_input_gradient",
    "conv_input_gradient_reference",
    "conv_weight_gradient",
    "conv_weight_gradient_reference",
    "hash32",
    "magnitude_bits",
    "matmul",
    "matmul_reference",
    "permutation",
    "requantise",
    "saturate",
    "shift_nearest",
    "shift_round",
    "shift_stochastic",
    "stream_key",
    "uniform_below",
    "wrap32",
]
