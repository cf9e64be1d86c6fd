"""The programs of the scalar unit: `fixgrad.network.normalisation` step by step, for one channel.

A program is a list of operations on 64-bit registers. Results that are kept lie in the first registers, in the order of their
fields in a channel's record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from fixgrad.machine.elementwise_instructions import RECORD


class Op(IntEnum):
    """What an operation does with x and y; `bits` is its constant.

    ALIGN: x * 2**y, rounded and saturated to `bits` bits (`fixgrad.numbers.elementwise.align_each`). DIVIDE, DIVIDE_NEAREST: x / y
    rounded down and to nearest. ROOM: y less the bits of |x|; ROOM_EVEN: that without its lowest bit; ROOM_LACKING: that if it is
    negative, else 0. RAISE: x * 2**8. POSITIVE: x, 0 if it is negative. JUMP: to operation y. END: the channel is done.
    """

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    DIVIDE = 3
    DIVIDE_NEAREST = 4
    ALIGN = 5
    ROOT = 6
    ROOM = 7
    ROOM_EVEN = 8
    ROOM_LACKING = 9
    RAISE = 10
    POSITIVE = 11
    JUMP = 12
    END = 13


#: Registers of a channel: first the results, in the order of the record from `a` on, then the gradients, then what else there is.
RESULTS = tuple(item.name for item in RECORD[2:])
WORK = (
    *RESULTS, "gamma_gradient", "beta_gradient", "middle", "rest", "centred", "spread_sum", "variance", "unbiased", "target",
    "shift", "width", "product_left", "share", "lowered", "raised", "ratio", "left", "other",
)  # fmt: skip
#: What is read of a channel: its record, gamma, beta.
INPUTS = (*(f"in_{item.name}" for item in RECORD), "gamma", "beta")
#: What is the same for all channels.
CONSTANTS = (
    "zero", "count", "count_less_one", "average", "epsilon", "factor_left", "offset_left", "mean_left", "variance_left",
    "two_to_40",
)  # fmt: skip
#: Where the three kinds of registers begin.
INPUT_BASE, CONSTANT_BASE = 32, 48
REGISTERS = {
    **{name: place for place, name in enumerate(WORK)},
    **{name: INPUT_BASE + place for place, name in enumerate(INPUTS)},
    **{name: CONSTANT_BASE + place for place, name in enumerate(CONSTANTS)},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: result register, x, y (a register, or a number from -128 to 127), constant."""

    op: Op
    to: int = 0
    x: int = 0
    y: int = 0
    y_is_number: bool = False
    bits: int = 0


class _Writer:
    """Writes operations down, with names for registers."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def __call__(self, op: Op, to: str = "a", x: str = "zero", y: str | int = "zero", bits: int = 0) -> None:
        number = isinstance(y, int)
        place = y if isinstance(y, int) else REGISTERS[y]
        self.operations.append(Operation(op, REGISTERS[to], REGISTERS[x], place, number, bits))


def _moments(do: _Writer) -> None:
    """`moments`, and `moved` with both `_towards`."""
    do(Op.RAISE, "mean", "in_total")
    do(Op.DIVIDE_NEAREST, "mean", "mean", "count")
    do(Op.DIVIDE_NEAREST, "middle", "in_total", "count")
    do(Op.MULTIPLY, "rest", "middle", "count")
    do(Op.SUBTRACT, "rest", "in_total", "rest")
    do(Op.MULTIPLY, "other", "in_total", "middle")
    do(Op.ADD, "other", "other", "other")
    do(Op.SUBTRACT, "centred", "in_product", "other")
    do(Op.MULTIPLY, "other", "middle", "middle")
    do(Op.MULTIPLY, "other", "other", "count")
    do(Op.ADD, "centred", "centred", "other")
    do(Op.RAISE, "centred", "centred")
    do(Op.MULTIPLY, "rest", "rest", "rest")
    do(Op.RAISE, "rest", "rest")
    do(Op.DIVIDE, "rest", "rest", "count")
    do(Op.SUBTRACT, "spread_sum", "centred", "rest")
    do(Op.POSITIVE, "spread_sum", "spread_sum")
    do(Op.DIVIDE, "variance", "spread_sum", "count")
    do(Op.MULTIPLY, "unbiased", "variance", "count")
    do(Op.DIVIDE, "unbiased", "unbiased", "count_less_one")
    for name, seen in (("mean", "mean"), ("variance", "unbiased")):
        do(Op.ALIGN, "target", seen, f"{name}_left", 50)
        do(Op.SUBTRACT, "target", "target", f"in_running_{name}")
        do(Op.MULTIPLY, "target", "target", "average")
        do(Op.ALIGN, "target", "target", -12, 63)
        do(Op.ADD, f"running_{name}", f"in_running_{name}", "target")


def _running_moments(do: _Writer) -> None:
    """`moments_of`."""
    do(Op.ALIGN, "mean", "in_running_mean", "mean_left", 25)
    do(Op.ALIGN, "variance", "in_running_variance", "variance_left", 41)


def _forward(do: _Writer) -> None:
    """`inverse_root` and `forward_map`."""
    do(Op.ADD, "spread", "variance", "epsilon")
    do(Op.ROOM_EVEN, "shift", "spread", 48)
    do(Op.ALIGN, "width", "spread", "shift", 63)
    do(Op.ROOT, "width", "width")
    do(Op.DIVIDE_NEAREST, "root", "two_to_40", "width")
    do(Op.ALIGN, "half", "shift", -1, 63)
    do(Op.ADD, "half", "half", 4)
    do(Op.MULTIPLY, "a", "gamma", "root")
    do(Op.ADD, "left", "half", "factor_left")
    do(Op.ALIGN, "a", "a", "left", 32)
    do(Op.ADD, "b", "zero", 0)
    do(Op.ALIGN, "c", "beta", "offset_left", 47)
    do(Op.MULTIPLY, "other", "a", "mean")
    do(Op.ALIGN, "other", "other", -8, 63)
    do(Op.SUBTRACT, "c", "c", "other")
    do(Op.END)


def _backward(do: _Writer) -> None:
    """`backward_map`, `gamma_gradient`."""
    do(Op.RAISE, "centred", "in_product")
    do(Op.MULTIPLY, "other", "in_total", "in_mean")
    do(Op.SUBTRACT, "centred", "centred", "other")
    do(Op.ROOM_LACKING, "lowered", "centred", 53)
    do(Op.ALIGN, "share", "centred", "lowered", 63)
    do(Op.RAISE, "share", "share")
    do(Op.DIVIDE_NEAREST, "share", "share", "count")
    do(Op.ROOM, "raised", "share", 60)
    do(Op.ALIGN, "share", "share", "raised", 63)
    do(Op.DIVIDE, "share", "share", "in_spread")
    do(Op.ROOM_LACKING, "other", "share", 30)
    do(Op.ALIGN, "ratio", "share", "other", 63)
    # by_code's shift is lowered + dropped - raised - 8; `lowered` and `other` (dropped) are negative here.
    do(Op.ADD, "left", "lowered", "other")
    do(Op.ADD, "left", "left", "raised")
    do(Op.ADD, "left", "left", 8)
    do(Op.SUBTRACT, "left", "zero", "left")
    do(Op.MULTIPLY, "a", "gamma", "in_root")
    do(Op.ADD, "product_left", "in_half", "factor_left")
    do(Op.ALIGN, "a", "a", "product_left", 32)
    do(Op.MULTIPLY, "b", "a", "ratio")
    do(Op.ALIGN, "b", "b", "left", 38)
    do(Op.SUBTRACT, "b", "zero", "b")
    do(Op.MULTIPLY, "other", "in_total", "a")
    do(Op.DIVIDE_NEAREST, "c", "other", "count")
    do(Op.MULTIPLY, "other", "b", "in_mean")
    do(Op.ALIGN, "other", "other", -8, 63)
    do(Op.ADD, "c", "c", "other")
    do(Op.SUBTRACT, "c", "zero", "c")
    do(Op.ROOM_LACKING, "lowered", "centred", 44)
    do(Op.ALIGN, "share", "centred", "lowered", 63)
    do(Op.MULTIPLY, "share", "share", "in_root")
    do(Op.SUBTRACT, "left", "in_half", "lowered")
    do(Op.ADD, "left", "left", -44)
    do(Op.ALIGN, "gamma_gradient", "share", "left", 32)
    do(Op.ADD, "beta_gradient", "in_total", 0)
    do(Op.END)


def _written() -> tuple[tuple[Operation, ...], int, int, int]:
    do, starts = _Writer(), []
    parts: tuple[Callable[[_Writer], None], ...] = (_backward, _running_moments, _moments, _forward)
    for part in parts:
        starts.append(len(do.operations))
        part(do)
        if part is _running_moments:
            do(Op.JUMP)
    jump = next(place for place, each in enumerate(do.operations) if each.op == Op.JUMP)
    do.operations[jump] = Operation(Op.JUMP, y=starts[3], y_is_number=True)
    return tuple(do.operations), starts[2], starts[0], starts[1]


#: All operations, and where FF, NG and FF with the running statistics begin.
PROGRAM, FF_START, NG_START, EVALUATION_START = _written()
