"""The plan of an axis against the definition: for every pixel the taps that meet the image, and where."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fixgrad.gateware.pe.axis_planner import AxisPlanner
from fixgrad.gateware.pe.shape import MAX_RUNS, Mode, PeShape
from fixgrad.machine.presets import TINY

SHAPE = PeShape.of(TINY)
INPUT_MASK, LANE_MASK = SHAPE.input_words - 1, SHAPE.lane_words - 1


@dataclass(frozen=True)
class Axis:
    """One axis of a COMPUTE."""

    mode: Mode
    kernel: int
    stride: int
    pad: int
    dilation: int
    size: int
    out_begin: int
    out_end: int
    in_begin: int = 0
    in_unit: int = 1
    out_unit: int = 1
    number_unit: int = 1
    count_padding: bool = False

    def position(self, pixel: int, tap: int) -> int | None:
        """The input coordinate that they meet, if it is inside."""
        if self.mode is Mode.NG:
            position, rest = divmod(pixel + self.pad - tap * self.dilation, self.stride)
            if rest:
                return None
        else:
            position = pixel * self.stride + tap * self.dilation - self.pad
        return position if 0 <= position < self.size else None


@dataclass
class Plan:
    """The words of a plan, as the planner sent them."""

    runs: dict[int, Any]
    taps: dict[int, Any]
    axis: dict[str, int]
    refused: bool
    cycles: int


def plan(simulate: Callable[..., None], axis: Axis) -> Plan:
    """Runs the planner."""
    dut = AxisPlanner(SHAPE)
    found = Plan({}, {}, {}, False, 0)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.mode, axis.mode)
        for name in ("kernel", "stride", "pad", "dilation", "size", "out_begin", "out_end", "in_begin"):
            ctx.set(getattr(dut, name), getattr(axis, name))
        for name in ("in_unit", "out_unit", "number_unit", "count_padding"):
            ctx.set(getattr(dut, name), int(getattr(axis, name)))
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        while True:
            word = ctx.get(dut.word)
            if ctx.get(dut.word_valid):
                if word.is_tap:
                    found.taps[word.index] = (word.word.tap.offset, word.word.tap.number)
                elif word.is_run:
                    found.runs[word.index] = word.word.run
                else:
                    found.axis = {name: word.word.axis[name] for name, _ in SHAPE.axis()}
            found.cycles += 1
            if ctx.get(dut.done):
                found.refused = bool(ctx.get(dut.too_many_runs))
                return
            await ctx.tick()

    simulate(dut, bench, limit=60_000)
    return found


Pair = tuple[int, int, int, bool]


def walked(axis: Axis, found: Plan) -> list[Pair]:
    """(word of the pixel in a lane, word in the input buffer, tap, whether it counts) of each step along the axis."""
    pairs: list[Pair] = []
    if found.axis["empty"]:
        return pairs
    for index in range(found.axis["last_run"] + 1):
        run = found.runs[index]
        for count in range(run.last + 1):
            pixel = run.pixel + count * found.axis["pixel_step"] & LANE_MASK
            base = run.base + count * found.axis["base_step"] & INPUT_MASK
            if axis.mode is Mode.WG:
                steps = [(run.of.wg.tap, run.of.wg.begin <= count < run.of.wg.end)]
            else:
                taps = found.axis["all_taps"] if axis.count_padding else run.of.taps
                steps = [(tap, bool(run.of.taps >> tap & 1)) for tap in range(15) if taps >> tap & 1]
            pairs += [(pixel, base + found.taps[tap][0] & INPUT_MASK, tap, counts) for tap, counts in steps]
    return pairs


def expected(axis: Axis) -> list[Pair]:
    """The same by definition, in no order. Where a pair does not count, its input word is of no interest: 0."""
    pairs: list[Pair] = []
    for pixel in range(axis.out_begin, axis.out_end):
        for tap in range(axis.kernel):
            position, lane_word = axis.position(pixel, tap), (pixel - axis.out_begin) * axis.out_unit & LANE_MASK
            if position is not None:
                pairs.append((lane_word, (position - axis.in_begin) * axis.in_unit & INPUT_MASK, tap, True))
            elif axis.count_padding:
                pairs.append((lane_word, 0, tap, False))
    return sorted(pairs)


def check(simulate: Callable[..., None], axis: Axis) -> Plan:
    found = plan(simulate, axis)
    assert not found.refused
    steps = walked(axis, found)
    assert sorted((pixel, word if counts else 0, tap, counts) for pixel, word, tap, counts in steps) == expected(axis)
    if axis.out_begin < axis.out_end:
        assert [found.taps[tap][1] for tap in range(axis.kernel)] == [tap * axis.number_unit for tap in range(axis.kernel)]
    if axis.mode is Mode.WG:
        assert [step[2] for step in steps] == sorted(step[2] for step in steps), "one tap after the other"
    return found


MODES = [Mode.FF, Mode.NG, Mode.WG]


@pytest.mark.parametrize("mode", MODES)
def test_a_3x3_convolution_with_padding(simulate: Callable[..., None], mode: Mode) -> None:
    """The right half of a row of 8: only its last pixel has a tap in the padding."""
    found = check(simulate, Axis(mode, 3, 1, 1, 1, size=8, out_begin=4, out_end=8, in_begin=3, in_unit=5, out_unit=4))
    runs = [found.runs[index] for index in sorted(found.runs)]
    if mode is Mode.WG:
        assert [(run.of.wg.tap, run.last + 1) for run in runs] == [(0, 4), (1, 4), (2, 3)]
    elif mode is Mode.FF:
        assert [(run.of.taps, run.last + 1) for run in runs] == [(0b111, 3), (0b011, 1)]
    else:  # the kernel is turned round
        assert [(run.of.taps, run.last + 1) for run in runs] == [(0b111, 3), (0b110, 1)]


def test_a_stride_divides_positions_of_ng_into_classes(simulate: Callable[..., None]) -> None:
    """A 1x1 kernel with stride 2: every second pixel meets nothing and is not in the plan."""
    found = check(simulate, Axis(Mode.NG, 1, 2, 0, 1, size=4, out_begin=0, out_end=8))
    assert [(run.pixel, run.last + 1) for run in found.runs.values()] == [(0, 4)]
    assert found.axis["pixel_step"] == 2


def test_a_rectangle_in_the_padding_makes_an_empty_plan(simulate: Callable[..., None]) -> None:
    found = check(simulate, Axis(Mode.FF, 2, 1, 5, 1, size=4, out_begin=0, out_end=3))
    assert found.axis["empty"] == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kernel", "out_end"), [(0, 4), (3, 0)])
def test_nothing_to_do_makes_an_empty_plan(simulate: Callable[..., None], mode: Mode, kernel: int, out_end: int) -> None:
    assert plan(simulate, Axis(mode, kernel, 1, 1, 1, size=4, out_begin=0, out_end=out_end)).axis["empty"] == 1


def test_the_time_of_a_plan(simulate: Callable[..., None]) -> None:
    """Pixels times taps and one, and ten: 16 rows of a 3x3 kernel take 75 cycles."""
    assert plan(simulate, Axis(Mode.FF, 3, 1, 1, 1, size=32, out_begin=0, out_end=16)).cycles == 16 * 4 + 11
    assert plan(simulate, Axis(Mode.WG, 3, 1, 1, 1, size=32, out_begin=0, out_end=16)).cycles == 17 * 3 + 10


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    integer = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    begin, size = integer(0, 20), integer(1, 24)
    return Axis(
        draw(st.sampled_from(MODES)),
        kernel=integer(1, 15),
        stride=integer(1, 15),
        pad=integer(0, 15),
        dilation=integer(1, 15),
        size=size,
        out_begin=begin,
        out_end=begin + integer(0, 12),
        in_begin=integer(0, size - 1),
        in_unit=integer(1, 12),
        out_unit=integer(1, 8),
        number_unit=integer(1, 15),
        count_padding=draw(st.booleans()),
    )


def runs_bound(axis: Axis) -> int:
    return 2 * axis.kernel + (axis.stride if axis.mode is Mode.NG else 1)


@settings(max_examples=60)
@given(axes())
@example(Axis(Mode.FF, 15, 1, 15, 1, size=8, out_begin=0, out_end=24))
@example(Axis(Mode.NG, 15, 15, 7, 2, size=8, out_begin=0, out_end=24))
@example(Axis(Mode.NG, 3, 2, 1, 1, size=1, out_begin=1, out_end=2, count_padding=True))
def test_any_axis(simulate: Callable[..., None], axis: Axis) -> None:
    assume(not axis.count_padding or runs_bound(axis) <= MAX_RUNS)
    check(simulate, axis)


def test_too_many_runs_are_refused(simulate: Callable[..., None]) -> None:
    """Only with `count_padding`, where pixels that meet nothing are runs as well."""
    wide = Axis(Mode.NG, 15, 15, 0, 2, size=4, out_begin=0, out_end=100)
    check(simulate, wide)
    assert plan(simulate, replace(wide, count_padding=True)).refused
