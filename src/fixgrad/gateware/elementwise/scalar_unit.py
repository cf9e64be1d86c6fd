"""Runs the programs of `fixgrad.gateware.elementwise.scalar_program`: one operation after the other on 64-bit registers.

    cycles   2 for sums, 3 for bits of a value, 4 for products and shifts, 4 + bits of the quotient / 2, 27 for a root
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import absolute
from fixgrad.gateware.arithmetic.scalar_division import ShortDivider, SquareRoot, bit_length
from fixgrad.gateware.elementwise.scalar_program import (
    CONSTANT_BASE,
    CONSTANTS,
    EVALUATION_START,
    FF_START,
    INPUT_BASE,
    NG_START,
    PROGRAM,
    Op,
    Operation,
)
from fixgrad.machine.elementwise_instructions import NORMALISE_EVALUATION, NORMALISE_FF, NORMALISE_NG

#: Bits of a register, and of the factors of a product.
BITS, FACTORS = 64, (52, 35)
#: Widest shift of `align_each`.
_WIDEST = 62
#: Bits of the dividend's magnitude and of a divisor.
_DIVIDEND, _DIVISOR = 63, 44
_ROOT_BITS = 48

#: What the programs take as constants; numbers are as in the instruction and the entry of the step table.
SCALARS = data.StructLayout(
    {
        "count": 25,
        "average": 13,
        "epsilon": 48,
        **dict.fromkeys(("factor_left", "offset_left", "mean_left", "variance_left"), signed(8)),
    }
)
_OPERATION = data.StructLayout({"op": Op, "to": 5, "x": 6, "y": signed(8), "y_is_number": 1, "bits": 6})


class _State(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Nothing to do, operands are read, the operation is at work."""

    IDLE = 0
    READ = 1
    WORK = 2


class ScalarUnit(wiring.Component):
    """One channel at a time. Inputs and results are held for two, told apart by `bank`.

    Members:
        mode: in, of NORMALISE, steady. scalars: in, steady.
        write: in, {enable, bank, place, value}: an input, see `INPUTS`.
        begin: in, a pulse while not busy: a channel whose inputs are in `bank` (in, with it). busy: out.
        result: in, {bank, place}: a register of the channel that used this bank; its value: out, combinational.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "mode": In(2),
                "scalars": In(SCALARS),
                "write": In(data.StructLayout({"enable": 1, "bank": 1, "place": 4, "value": BITS})),
                "begin": In(1),
                "bank": In(1),
                "busy": Out(1),
                "result": In(data.StructLayout({"place": 5, "bank": 1})),
                "value": Out(BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state, at, bank = Signal(_State), Signal(range(len(PROGRAM))), Signal()
        fetched, operation = Signal(_OPERATION), Signal(_OPERATION)
        self._x, self._y = Signal(signed(BITS), name="x"), Signal(signed(BITS), name="y")
        result, done = Signal(BITS, name="result_now"), Signal()
        with m.Switch(at):
            for place, each in enumerate(PROGRAM):
                with m.Case(place):
                    m.d.comb += fetched.eq(_encoded(each))
        operands = self._registers(m, fetched, bank, result, operation, done)
        starts = {NORMALISE_FF: FF_START, NORMALISE_NG: NG_START, NORMALISE_EVALUATION: EVALUATION_START}
        begins = Signal()
        m.d.comb += self.busy.eq(state != _State.IDLE)
        with m.Switch(state):
            with m.Case(_State.IDLE), m.If(self.begin):
                m.d.sync += [state.eq(_State.READ), bank.eq(self.bank)]
                m.d.sync += at.eq(Array(starts.get(mode, FF_START) for mode in range(4))[self.mode])
            with m.Case(_State.READ):
                m.d.comb += begins.eq(1)
                m.d.sync += [operation.eq(fetched), self._x.eq(operands[0]), self._y.eq(operands[1]), state.eq(_State.WORK)]
                m.d.sync += at.eq(at + 1)
            with m.Case(_State.WORK), m.If(done):
                m.d.sync += state.eq(_State.READ)
                with m.If(operation.op == Op.JUMP):
                    m.d.sync += at.eq(self._y)
                with m.Elif(operation.op == Op.END):
                    m.d.sync += state.eq(_State.IDLE)
        self._work(m, state == _State.WORK, operation, result, done)
        return m

    def _registers(
        self, m: Module, fetched: data.View, bank: Value, result: Value, operation: data.View, done: Value
    ) -> tuple[Value, Value]:
        """Registers that are written, inputs, constants; returns both operands."""
        m.submodules.work = work = Memory(shape=BITS, depth=2 * INPUT_BASE, init=[])
        m.submodules.inputs = inputs = Memory(shape=BITS, depth=2 * (CONSTANT_BASE - INPUT_BASE), init=[])
        work_write, input_write, results = work.write_port(), inputs.write_port(), work.read_port(domain="comb")
        keeps = (operation.op != Op.JUMP) & (operation.op != Op.END)
        m.d.comb += [
            work_write.addr.eq(Cat(operation.to, bank)),
            work_write.data.eq(result),
            work_write.en.eq(done & keeps),
            input_write.addr.eq(Cat(self.write.place, self.write.bank)),
            input_write.data.eq(self.write.value),
            input_write.en.eq(self.write.enable),
            results.addr.eq(Cat(self.result.place, self.result.bank)),
            self.value.eq(results.data),
        ]
        operands = []
        for name, place in (("x", fetched.x), ("y", fetched.y[:6])):
            of_work, of_inputs = work.read_port(domain="comb"), inputs.read_port(domain="comb")
            constant, operand = Signal(signed(BITS), name=f"constant_{name}"), Signal(signed(BITS), name=f"operand_{name}")
            m.d.comb += [of_work.addr.eq(Cat(place[:5], bank)), of_inputs.addr.eq(Cat(place[:4], bank))]
            with m.Switch(place[:4]):
                for index, value in enumerate(self._constants()):
                    with m.Case(index):
                        m.d.comb += constant.eq(value)
            m.d.comb += operand.eq(Mux(place[5], Mux(place[4], constant, of_inputs.data), of_work.data))
            operands.append(operand)
        return operands[0], Mux(fetched.y_is_number, fetched.y, operands[1])

    def _constants(self) -> list[Value]:
        """In the order of `CONSTANTS`."""
        scalars = self.scalars
        special = {
            "zero": Const(0, 1),
            "count_less_one": Mux(scalars.count > 1, scalars.count - 1, 1)[:25],
            "two_to_40": Const(1 << 40, 41),
        }
        return [special[name] if name in special else scalars[name] for name in CONSTANTS]

    def _work(self, m: Module, at_work: Value, operation: data.View, result: Signal, done: Signal) -> None:
        """The operation at hand, from its first cycle until its result is there."""
        x, y, cycle = self._x, self._y, Signal(2)
        with m.If(at_work & ~done):
            m.d.sync += cycle.eq(Mux(cycle == 3, 3, cycle + 1))
        with m.Else():
            m.d.sync += cycle.eq(0)
        first = at_work & (cycle == 0)
        length = Signal(range(BITS + 1))
        m.d.sync += length.eq(bit_length(m, absolute(x), "length_now"))
        quotient, divided = self._divide(m, operation, first)
        m.submodules.root = root = SquareRoot(_ROOT_BITS)
        m.d.comb += [root.value.eq(x), root.begin.eq(first & (operation.op == Op.ROOT))]
        room = Signal(signed(9))
        m.d.comb += room.eq(y[:8].as_signed() - length)
        product = self._multiply(m)
        kinds = {
            Op.ADD: (x + y, 1),
            Op.SUBTRACT: (x - y, 1),
            Op.MULTIPLY: (product, cycle == 2),
            Op.DIVIDE: (quotient, divided),
            Op.DIVIDE_NEAREST: (quotient, divided),
            Op.ALIGN: (self._align(m, operation, length), cycle == 2),
            Op.ROOT: (root.root, root.done),
            Op.ROOM: (room, cycle == 1),
            Op.ROOM_EVEN: (Cat(Const(0, 1), room[1:]).as_signed(), cycle == 1),
            Op.ROOM_LACKING: (Mux(room < 0, room, 0), cycle == 1),
            Op.RAISE: (Cat(Const(0, 8), x), 1),
            Op.POSITIVE: (Mux(x < 0, 0, x), 1),
            Op.JUMP: (Const(0), 1),
            Op.END: (Const(0), 1),
        }
        with m.Switch(operation.op):
            for op, (value, is_there) in kinds.items():
                with m.Case(op):
                    m.d.comb += [result.eq(value), done.eq(at_work & is_there)]

    def _multiply(self, m: Module) -> Value:
        """x y, two cycles later."""
        factors = [value[:bits].as_signed() for value, bits in zip((self._x, self._y), FACTORS, strict=True)]
        products = [Signal(signed(sum(FACTORS)), name=f"product_{cycle}") for cycle in range(2)]
        m.d.sync += [products[0].eq(factors[0] * factors[1]), products[1].eq(products[0])]
        return products[1]

    def _divide(self, m: Module, operation: data.View, first: Value) -> tuple[Value, Value]:
        """floor(x / y), or floor((x + y // 2) / y): of a negative dividend by its complement, ~floor(~x / y)."""
        m.submodules.divider = divider = ShortDivider(_DIVIDEND, _DIVISOR)
        dividend, begins, is_negative = Signal(signed(BITS)), Signal(), Signal()
        is_nearest, divides = operation.op == Op.DIVIDE_NEAREST, (operation.op == Op.DIVIDE) | (operation.op == Op.DIVIDE_NEAREST)
        m.d.sync += [begins.eq(first & divides), dividend.eq(self._x + Mux(is_nearest, self._y[1:], 0))]
        m.d.comb += [
            is_negative.eq(dividend < 0),
            divider.begin.eq(begins),
            divider.dividend.eq(Mux(is_negative, ~dividend, dividend)),
            divider.divisor.eq(self._y),
        ]
        return Mux(is_negative, ~Cat(divider.quotient, Const(0, 1)), Cat(divider.quotient, Const(0, 1))).as_signed(), divider.done

    def _align(self, m: Module, operation: data.View, length: Value) -> Value:
        """`align_each`, two cycles later."""
        x, y, bits = self._x, self._y, operation.bits
        to_left, amount, amount_now = Signal(), Signal(range(_WIDEST + 1)), Signal(range(_WIDEST + 1))
        magnitude = Mux(y < 0, -y, y)[:10]
        m.d.comb += amount_now.eq(Mux(magnitude > _WIDEST, _WIDEST, magnitude))
        m.d.sync += [to_left.eq(y >= 0), amount.eq(amount_now)]
        # Shifted with one place below the point, which rounds.
        left, right, overflows, sign = Signal(signed(BITS)), Signal(signed(BITS + 1)), Signal(), Signal()
        room = Signal(signed(8))
        m.d.comb += room.eq(bits - 1 - amount)
        m.d.sync += [
            left.eq(_left(x, amount)),
            right.eq(Cat(Const(0, 1), x).as_signed() >> amount),
            overflows.eq(length > Mux(room < 0, 0, room)),
            sign.eq(x < 0),
        ]
        limit, rounded = Signal(BITS - 2), Signal(signed(BITS + 1))
        m.d.comb += [limit.eq(Cat(bits > place + 1 for place in range(BITS - 2))), rounded.eq((right + 1) >> 1)]
        largest = Signal(signed(BITS))
        m.d.comb += largest.eq(limit)
        clipped = Mux(rounded > largest, largest, Mux(rounded < -largest, -largest, rounded))
        return Mux(to_left, Mux(overflows, Mux(sign, -largest, largest), left), clipped)[:BITS].as_signed()


def _encoded(each: Operation) -> Value:
    parts = (each.op, 4), (each.to, 5), (each.x, 6), (each.y & 0xFF, 8), (int(each.y_is_number), 1), (each.bits, 6)
    return Cat(Const(int(value), width) for value, width in parts)


def _left(value: Value, amount: Value) -> Value:
    """value * 2**amount modulo 2**BITS."""
    shifted: Value = value
    for stage, bit in enumerate(amount):
        shifted = Mux(bit, Cat(Const(0, 1 << stage), shifted)[:BITS], shifted)
    return shifted
