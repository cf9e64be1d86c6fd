"""ELEMENTWISE, CHANNEL_SUMS and NORMALISE against the reference operations of `fixgrad.network`, with ==."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.compiler.step_entries import alignment
from fixgrad.machine import Instruction, preset
from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, MAXIMUM, NORMALISE_EVALUATION, NORMALISE_FF, NORMALISE_NG
from fixgrad.network import BatchNorm
from fixgrad.network.normalisation import (
    PRODUCT_FRAC,
    ROOT_FRAC,
    Coefficients,
    ErrorSums,
    Running,
    apply_backward,
    apply_forward,
    averaged,
    backward_map,
    channel_sums,
    epsilon_code,
    forward_map,
    gamma_gradient,
    inverse_root,
    moments,
    running_moments,
    running_shifts,
)
from fixgrad.network.operations import aligned_sum, element_index, pool_backward, pool_forward
from fixgrad.network.pool_operations import average_errors, average_sums, sliding_errors, sliding_maxima
from fixgrad.network.windows import AdaptiveAvgPool2d, AvgPool2d, SlidingMaxPool2d, reciprocal
from fixgrad.numbers import StreamKey, hash32, magnitude_bits, saturate, shift_nearest, shift_stochastic
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.functional import IllegalInstruction, execute

from .elementwise_board import MACHINE, Board, plain_window

Codes = NDArray[Any]
KEY = StreamKey(0x1234_5678, 0x9ABC_DEF0)
seeds = st.integers(0, 1 << 32)


def codes_of(seed: int, shape: tuple[int, ...], limit: int = 127) -> Codes:
    """Random codes, some at the limits, now and then all zero or all at a limit."""
    rng = np.random.default_rng(seed)
    if seed % 13 == 0:
        return np.full(shape, rng.choice((0, limit, -limit)))
    values = rng.integers(-limit, limit + 1, shape)
    values[rng.random(shape) < 0.1] = rng.choice((-limit, 0, 1, limit))
    return values


def pixels(shape: tuple[int, ...]) -> int:
    return shape[-2] * shape[-1]


def result_fields(shape: tuple[int, ...], **also: int) -> dict[str, int]:
    """Where a result [batch, channels, rows, columns] of 8 bits goes."""
    _, channels, rows, columns = shape
    fields = {"channels": channels, "rows": rows, "columns": columns, "channel_words": rows * columns, "row_words": columns}
    return {**fields, "out_bits": 8, "random_row": columns, "measured": 1, "statistics": 7, **also}


def elements(board: Board, shape: tuple[int, ...]) -> int:
    return board.store(np.arange(shape[1]) * pixels(shape) * board.batch, "<u4")


def check_codes(board: Board, target: int, sums: Codes, shift: int, bits: int = 8, stochastic: bool = False) -> None:
    """What memory and range register hold is what becomes of these accumulators."""
    wide = shift_stochastic(sums, shift, hash32(element_index(sums.shape), KEY)) if stochastic else shift_nearest(sums, shift)
    expected = saturate(wide, bits)
    got = board.get_map(target, sums.shape[1:], "<i2" if bits > 8 else "i1")
    assert (got == expected).all()
    magnitude, saturated = board.registers[7]
    assert (magnitude.bit_length(), saturated) == (magnitude_bits(sums), int((expected != wide).sum()))


@given(
    seeds,
    st.integers(1, 9),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(-20, 40), st.integers(-20, 40)),
    st.integers(0, 31),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_sum_of_two_maps(
    seed: int,
    batch: int,
    shape: tuple[int, int, int],
    fracs: tuple[int, int],
    shift: int,
    rectify: bool,
    masked: bool,
    stochastic: bool,
) -> None:
    board, full = Board(batch), (batch, *shape)
    strides = {"channel": pixels((batch, *shape)), "row": shape[2]}
    first, second, mask = (codes_of(seed + number, full) for number in range(3))
    words = int(np.prod(shape))
    maps = {name: (board.put_map(codes), words, 1) for name, codes in (("first", first), ("second", second), ("mask", mask))}
    target = board.put_map(np.zeros(full))
    instructions = board.elementwise(
        result_fields(full, operands=2, factor=1, rectify=int(rectify), masked=int(masked), element=elements(board, full)),
        {**maps, "target": (target, words, 1)},
        **plain_window(*shape[1:]),
        **{f"{name}_{what}_words": size for name in ("second", "mask") for what, size in strides.items()},
    )
    entry = {"shift": shift, "stochastic": int(stochastic), "key_low": KEY.low, "key_high": KEY.high, **alignment(fracs)}
    board.run([entry], instructions)
    sums, _ = aligned_sum([first, second], list(fracs))
    sums = np.maximum(sums, 0) if rectify else sums
    check_codes(board, target, np.where(mask > 0, sums, 0) if masked else sums, shift, stochastic=stochastic)


def pool_case(board: Board, source: Codes, out: tuple[int, ...], **fields: int) -> tuple[int, list[Instruction]]:
    """The target, and the instructions that make it [batch, channels, rows, columns] from windows of `source`."""
    full = (board.batch, source.shape[1], *out)
    target = board.put_map(np.zeros(full))
    maps = {"first": (board.put_map(source), source[0].size, 1), "target": (target, int(np.prod(full[1:])), 1)}
    window = {**plain_window(*source.shape[2:]), **fields}
    return target, board.elementwise(result_fields(full, operands=1, element=elements(board, full)), maps, **window)


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, int], ConvGeometry, tuple[int, int]]:
    """A window, its geometry, and a map into which it fits."""
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    geometry = ConvGeometry(
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=(draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))),
    )
    return kernel, geometry, (draw(st.integers(kernel[0], 7)), draw(st.integers(kernel[1], 7)))


def geometry_fields(kernel: tuple[int, int], geometry: ConvGeometry) -> dict[str, int]:
    fields = {}
    for axis, name in enumerate(("rows", "columns")):
        fields |= {f"kernel_{name}": kernel[axis], f"stride_{name}": geometry.stride[axis]}
        fields[f"pad_{name}"] = geometry.padding[axis]
    return fields


@given(seeds, st.integers(1, 6), windows(), st.integers(0, 4))
def test_maxima_of_any_windows_and_their_errors(
    seed: int, batch: int, window: tuple[tuple[int, int], ConvGeometry, tuple[int, int]], shift: int
) -> None:
    kernel, geometry, size = window
    board, x = Board(batch), codes_of(seed, (batch, 2, *size), 3)
    layer = SlidingMaxPool2d(name="pool", inputs=("x",), window=kernel, geometry=geometry)
    out = geometry.output_size(*size, *kernel)
    target, forward = pool_case(board, x, out, combine=MAXIMUM, factor=1, with_argmax=1, **geometry_fields(kernel, geometry))
    words = 2 * out[0] * out[1]
    argmax = board.allocate(board.micro_batches * words * MACHINE.lanes)
    forward = [item.replace(argmax=argmax + number * words * MACHINE.lanes) for number, item in enumerate(forward)]
    dy = codes_of(seed + 1, (batch, 2, *out))
    fields = {"combine": ERRORS_OF_MAXIMA, "transposed": 1, "factor": 1, "param": 1, **geometry_fields(kernel, geometry)}
    error, backward = pool_case(board, dy, size, **fields)
    backward = [item.replace(argmax=each.argmax, statistics=8) for item, each in zip(backward, forward, strict=True)]
    board.run([{}, {"shift": shift, "stochastic": 1, "key_low": KEY.low, "key_high": KEY.high}], [*forward, *backward])
    check_codes(board, target, sliding_maxima(layer, x), 0)
    board.registers[7] = board.registers[8]
    check_codes(board, error, sliding_errors(layer, x, dy), shift, stochastic=True)


@given(seeds, st.integers(1, 6), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(3, 7), st.integers(3, 7)))
def test_pools_that_do_not_overlap_pass_codes_on(seed: int, batch: int, window: tuple[int, int], size: tuple[int, int]) -> None:
    board, x = Board(batch), codes_of(seed, (batch, 3, *size))
    out = size[0] // window[0], size[1] // window[1]
    geometry = geometry_fields(window, ConvGeometry(stride=window))
    target, forward = pool_case(board, x, out, combine=MAXIMUM, factor=1, with_argmax=1, **geometry)
    words = 3 * out[0] * out[1]
    argmax = board.allocate(board.micro_batches * words * MACHINE.lanes)
    forward = [item.replace(argmax=argmax + number * words * MACHINE.lanes) for number, item in enumerate(forward)]
    dy = codes_of(seed + 1, (batch, 3, *out))
    error, backward = pool_case(board, dy, size, combine=ERRORS_OF_MAXIMA, transposed=1, factor=1, **geometry)
    backward = [item.replace(argmax=each.argmax) for item, each in zip(backward, forward, strict=True)]
    board.run([{}], [*forward, *backward])
    assert (board.get_map(target, (3, *out)) == pool_forward(x, window)).all()
    assert (board.get_map(error, (3, *size)) == pool_backward(x, dy, window)).all()


@given(seeds, st.integers(1, 6), windows(), st.integers(15, 31))
def test_averages_with_counted_padding_and_their_errors(
    seed: int, batch: int, window: tuple[tuple[int, int], ConvGeometry, tuple[int, int]], shift: int
) -> None:
    kernel, geometry, size = window
    layer = AvgPool2d(name="pool", inputs=("x",), window=kernel, geometry=geometry)
    board, x = Board(batch), codes_of(seed, (batch, 2, *size))
    out = geometry.output_size(*size, *kernel)
    fields = {"factor": reciprocal(kernel[0] * kernel[1]), **geometry_fields(kernel, geometry)}
    target, forward = pool_case(board, x, out, **fields)
    dy = codes_of(seed + 1, (batch, 2, *out))
    error, backward = pool_case(board, dy, size, transposed=1, statistics=8, param=1, **fields)
    board.run([{"shift": shift}, {"shift": shift, "stochastic": 1, "key_low": KEY.low, "key_high": KEY.high}], [*forward, *backward])
    check_codes(board, target, average_sums(layer, x), shift)
    board.registers[7] = board.registers[8]
    check_codes(board, error, average_errors(layer, dy, x.shape[1:]), shift, stochastic=True)


@given(seeds, st.integers(1, 6), st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_the_average_of_a_whole_map(seed: int, batch: int, size: tuple[int, int]) -> None:
    layer, board, x = AdaptiveAvgPool2d(name="pool", inputs=("x",)), Board(batch), codes_of(seed, (batch, 3, *size))
    fields = {"factor": reciprocal(size[0] * size[1]), **geometry_fields(size, ConvGeometry(stride=size))}
    target, forward = pool_case(board, x, (1, 1), **fields)
    dy = codes_of(seed + 1, (batch, 3, 1, 1))
    error, backward = pool_case(board, dy, size, transposed=1, statistics=8, **fields)
    board.run([{"shift": 20}], [*forward, *backward])
    check_codes(board, target, average_sums(layer, x), 20)
    board.registers[7] = board.registers[8]
    check_codes(board, error, average_errors(layer, dy, x.shape[1:]), 20)


@given(seeds, st.integers(1, 6), st.integers(1, 3))
def test_picked_pixels_and_zero_channels(seed: int, batch: int, stride: int) -> None:
    board, x = Board(batch), codes_of(seed, (batch, 2, 5, 6))
    out = -(-5 // stride), -(-6 // stride)
    picks = geometry_fields((1, 1), ConvGeometry(stride=(stride, stride)))
    target, forward = pool_case(board, x, out, factor=1, **picks)
    dy = codes_of(seed + 1, (batch, 2, *out))
    error, backward = pool_case(board, dy, (5, 6), transposed=1, factor=1, **picks)
    zeros = board.put_map(np.full((batch, 2, *out), 5))
    word = 2 * out[0] * out[1] * MACHINE.lanes
    filled = [item.replace(operands=0, target=zeros + number * word) for number, item in enumerate(forward)]
    board.run([{}], [*forward, *backward, *filled])
    expected = np.zeros((batch, 2, 5, 6))
    expected[:, :, ::stride, ::stride] = dy
    assert (board.get_map(target, (2, *out)) == x[:, :, ::stride, ::stride]).all()
    assert (board.get_map(error, (2, 5, 6)) == expected).all()
    assert not board.get_map(zeros, (2, *out)).any()


@given(
    seeds,
    st.integers(1, 9),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 20),
    st.integers(-10, 6),
    st.integers(-10, 20),
    st.sampled_from((1, 127, 1000, 32767)),
)
def test_batch_normalisation(
    seed: int, batch: int, shape: tuple[int, int, int], x_frac: int, exponent: int, error_frac: int, limit: int
) -> None:
    board, full, rng = Board(batch), (batch, *shape), np.random.default_rng(seed)
    layer = BatchNorm(name="norm", inputs=("x",), channels=shape[0], momentum=0.1)
    x, dy = codes_of(seed, full, limit), codes_of(seed + 1, full)
    coefficients = Coefficients(codes_of(seed + 2, shape[:1], (1 << 23) - 1), 20, codes_of(seed + 3, shape[:1], (1 << 23) - 1), 19)
    running = Running(rng.integers(-(1 << 40), 1 << 40, shape[0]), rng.integers(0, 1 << 45, shape[0]))
    count, words, frac = batch * pixels(full), int(np.prod(shape)), 24 - exponent

    # The reference
    seen = moments(channel_sums(x), channel_sums(x * x), count)
    inverse = inverse_root(seen.variance, epsilon_code(layer, x_frac))
    forward = apply_forward(forward_map(coefficients, seen, inverse, frac), x)
    moved = averaged(layer, running, seen, count, x_frac)
    sums, left = ErrorSums(channel_sums(dy), channel_sums(dy * x)), frac + x_frac - error_frac
    backward = apply_backward(backward_map(coefficients, seen, inverse, sums, count, left), dy, x)
    slopes = gamma_gradient(seen, inverse, sums)

    # The machine
    maps = {"x": (board.put_map(x, "<i2"), words, 2), "dy": (board.put_map(dy), words, 1)}
    record = board.put_records(shape[0], running_mean=running.mean, running_variance=running.variance)
    gamma, beta = (board.store(values, "<i4") for values in (coefficients.gamma, coefficients.beta))
    gradients = [board.allocate(4 * shape[0]) for _ in range(2)]
    normalise = {
        "record": record, "gamma": gamma, "beta": beta, "gamma_gradient": gradients[0], "beta_gradient": gradients[1],
        "channels": shape[0], "count": count, "average": layer.average_factor,
    }  # fmt: skip
    summed = {
        "second": maps["x"][0], "second_wide": 1, "products": 1, "target": record, "micro_batches": board.micro_batches,
        "batch_words": words, "channels": shape[0], "channel_words": pixels(full), "pixels": pixels(full),
    }  # fmt: skip
    target, error = board.put_map(np.zeros(full)), board.put_map(np.zeros(full))
    common = {**plain_window(*shape[1:]), "per_channel": 1}
    records = {"record": (record, 0, 1)}
    ff = board.elementwise(
        result_fields(full, operands=1), {"first": maps["x"], "target": (target, words, 1), **records}, first_wide=1, **common
    )
    ng = board.elementwise(
        result_fields(full, operands=2, statistics=8, param=1, element=elements(board, full)),
        {"first": maps["dy"], "second": maps["x"], "target": (error, words, 1), **records},
        second_wide=1, second_channel_words=pixels(full), second_row_words=shape[2], **common,
    )  # fmt: skip
    lefts = running_shifts(x_frac)
    factor_left = PRODUCT_FRAC - coefficients.gamma_frac - ROOT_FRAC
    entries = [
        {
            "shift": 17, "down": 8, "factor_left": frac + factor_left, "offset_left": frac + 8 - coefficients.beta_frac,
            "mean_left": lefts.mean, "variance_left": lefts.variance, "epsilon": epsilon_code(layer, x_frac),
        },
        {"shift": 17, "down": 8, "stochastic": 1, "key_low": KEY.low, "key_high": KEY.high, "factor_left": left + factor_left},
    ]  # fmt: skip
    board.run(
        entries,
        [
            Instruction("CHANNEL_SUMS", first=maps["x"][0], first_wide=1, **summed),
            Instruction("NORMALISE", mode=NORMALISE_FF, **normalise),
            *ff,
            Instruction("CHANNEL_SUMS", first=maps["dy"][0], **summed),
            Instruction("NORMALISE", mode=NORMALISE_NG, param=1, **normalise),
            *ng,
        ],
    )
    check_codes(board, target, forward, 17)
    board.registers[7] = board.registers[8]
    check_codes(board, error, backward, 17, stochastic=True)
    assert (board.get_record(record, shape[0], "running_mean") == moved.mean).all()
    assert (board.get_record(record, shape[0], "running_variance") == moved.variance).all()
    assert (board.integers(gradients[0], "<i4", shape[0]) == slopes).all()
    assert (board.integers(gradients[1], "<i4", shape[0]) == sums.error).all()

    # Evaluation takes the running statistics
    still = running_moments(moved, x_frac)
    back = lefts.back()
    entries[0] |= {"mean_left": back.mean, "variance_left": back.variance}
    board.run(entries, [Instruction("NORMALISE", mode=NORMALISE_EVALUATION, **normalise), *ff])
    by_running = inverse_root(still.variance, epsilon_code(layer, x_frac))
    check_codes(board, target, apply_forward(forward_map(coefficients, still, by_running, frac), x), 17)


@given(seeds, st.integers(1, 9))
def test_sums_alone_are_gradients_of_a_bias(seed: int, batch: int) -> None:
    board, dy = Board(batch), codes_of(seed, (batch, 3, 2, 5))
    target = board.allocate(12)
    sums = Instruction(
        "CHANNEL_SUMS", first=board.put_map(dy), target=target, micro_batches=board.micro_batches,
        batch_words=30, channels=3, channel_words=10, pixels=10,
    )  # fmt: skip
    board.run([{}], [sums])
    assert (board.integers(target, "<i4", 3) == channel_sums(dy)).all()


@pytest.mark.parametrize("name", ["ELEMENTWISE", "CHANNEL_SUMS", "NORMALISE"])
def test_a_machine_without_the_unit_refuses_its_opcodes(name: str) -> None:
    with pytest.raises(IllegalInstruction, match="illegal on tiny, which has no elementwise unit"):
        execute(preset("tiny"), np.zeros(1024, np.uint8), [Instruction(name), Instruction("HALT")])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kernel_rows": 0}, "a window has 0 taps: 1 to 4096"),
        ({"kernel_rows": 16, "kernel_columns": 16, "combine": MAXIMUM, "with_argmax": 1}, "a window has 256 taps: 1 to 255"),
        ({"stride_rows": 0}, "a stride is 0"),
        ({"combine": 3}, "operands, combine, out_bits or images is out of range"),
        ({"images": 5}, "operands, combine, out_bits or images is out of range"),
        ({"first": 1 << 30}, "outside of the memory"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, int], reason: str) -> None:
    board = Board(4)
    one = Instruction("ELEMENTWISE", operands=1, channels=1, rows=2, columns=2, out_bits=8, images=4, **plain_window(2, 2))
    with pytest.raises(IllegalInstruction, match=reason):
        board.run([{}], [one.replace(**fields)])
