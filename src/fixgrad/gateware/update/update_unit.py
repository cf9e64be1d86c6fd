"""The update of a parameter: momentum SGD with weight decay on stored integers, a parameter a cycle.

    u = saturate(round((momentum u + align(rate g) + align(decay w)) / 256));  w = saturate(w - round(u * 2**step_left))

Bit-exact to the definition in docs/arithmetic.md, "A step", 5 and 6.

    cycle 0   gradients of the PEs, stored weight, momentum, element come
    cycle 1   sum of the gradients                                         hash, round 1
    cycle 2   the three products                                           hash, round 2
    cycle 3   terms shifted                                                hash, round 3
    cycle 4   terms rounded or clamped, 40 bits                            hash, round 4
    cycle 5   their sum                                                    random bits
    cycle 6   new momentum
    cycle 7   at the stored scale, with 32 bits below the point
    cycle 8   rounded
    cycle 9   new stored weight
    cycle 10  its 8-bit operand
"""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.counter_hash import CounterHash
from fixgrad.gateware.arithmetic.fixed_point import (
    RANDOM_BITS,
    clamp,
    fraction_of,
    half,
    limit_of,
    limit_value,
    saturate,
    shift_left,
    shift_nearest,
    sum_of,
    wrap,
    wraps,
)
from fixgrad.machine import Machine
from fixgrad.numbers import ACCUMULATOR_BITS

#: Cycles from a gradient until its weight leaves.
UPDATE_LATENCY = 10
#: Widest stored weight and momentum.
STORED_BITS = 32
#: Fractional bits of the momentum's coefficient; width of each term before they are added (docs/arithmetic.md).
COEFFICIENT_BITS, TERM_BITS = 8, 40
OPERAND_BITS = 8
_PRODUCT_BITS = STORED_BITS + COEFFICIENT_BITS + 1
#: The widest left shift of a momentum to the stored scale: 32-bit weights with 16-bit momenta need 12.
_STEP_LEFT_BITS = 4

#: The step-table entry of an UPDATE; names and meanings as in `fixgrad.machine.instructions.STEP_PARAMETERS`.
SETTING = data.StructLayout(
    {
        "stochastic": 1,
        "key_low": 32,
        "key_high": 32,
        "momentum": COEFFICIENT_BITS,
        "rate": COEFFICIENT_BITS,
        "decay": COEFFICIENT_BITS,
        "gradient_left": signed(7),  # -62 to 39
        "decay_left": signed(7),  # likewise
        "step_left": signed(6),  # -31 to 15
        "operand_shift": 5,
        "stored_bits": 6,  # 2 to 32
        "momentum_bits": 6,  # likewise
    }
)
#: A parameter on its way out. `operand`: of the next step. `overflow`: the sum of its gradients left 32 bits.
PARAMETER = data.StructLayout(
    {"stored": signed(STORED_BITS), "momentum": signed(STORED_BITS), "operand": signed(OPERAND_BITS), "overflow": 1}
)


class UpdateUnit(wiring.Component):
    """Updates a parameter a cycle; nothing ever waits.

    Members:
        setting: in, steady from the first parameter until the last has left.
        gradients: in, array, a PE each; `pes` (in): the PEs that count. memory_gradient: in, added to their sum; one of the
            two is 0. stored, momentum: in, signed. element: in, of the stream of random bits. valid: in, all of them are.
        updated, updated_valid: out, `UPDATE_LATENCY` cycles later.
    """

    def __init__(self, machine: Machine) -> None:
        self.pe_count = machine.pes_per_group
        super().__init__(
            {
                "setting": In(SETTING),
                "gradients": In(ACCUMULATOR_BITS).array(self.pe_count),
                "pes": In(self.pe_count),
                "memory_gradient": In(signed(ACCUMULATOR_BITS)),
                "stored": In(signed(STORED_BITS)),
                "momentum": In(signed(STORED_BITS)),
                "element": In(32),
                "valid": In(1),
                "updated": Out(PARAMETER),
                "updated_valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        setting = self.setting
        valid = self._line(m, self.valid, UPDATE_LATENCY, "valid")
        stored = self._line(m, self.stored, 8, "stored")
        random, below = self._random(m)

        gradient, overflow = self._gradient(m)
        momentum = self._line(m, self.momentum, 1, "momentum")[1]
        kept = self._line(m, _product(m, momentum, setting.momentum), 2, "kept")[-1]
        pulled = _aligned(m, _product(m, gradient, setting.rate), setting.gradient_left)
        decayed = _aligned(m, _product(m, stored[1], setting.decay), setting.decay_left)
        total = Signal(signed(TERM_BITS + 3))
        m.d.sync += total.eq(kept + pulled + decayed)

        rounded = (total + random[RANDOM_BITS - COEFFICIENT_BITS :]) >> COEFFICIENT_BITS
        new_momentum = Signal(signed(STORED_BITS))
        m.d.sync += new_momentum.eq(clamp(rounded, limit_value(setting.momentum_bits, STORED_BITS)))

        change = self._change(m, new_momentum, below)
        new_stored = Signal(signed(STORED_BITS))
        m.d.sync += new_stored.eq(clamp(stored[8] - change, limit_value(setting.stored_bits, STORED_BITS)))
        m.d.sync += [
            self.updated.stored.eq(new_stored),
            self.updated.momentum.eq(self._line(m, new_momentum, 3, "new_momentum")[-1]),
            self.updated.operand.eq(saturate(shift_nearest(new_stored, setting.operand_shift), OPERAND_BITS)),
            self.updated.overflow.eq(self._line(m, overflow, UPDATE_LATENCY - 2, "overflow")[-1]),
        ]
        m.d.comb += self.updated_valid.eq(valid[-1])
        return m

    def _gradient(self, m: Module) -> tuple[Value, Value]:
        """The sum of the PEs' partial gradients, and whether it left 32 bits, at cycle 1."""
        partial = [Mux(self.pes[number], gradient.as_signed(), 0) for number, gradient in enumerate(self.gradients)]
        total = sum_of([self.memory_gradient, *partial])
        gradient, overflow = Signal(signed(ACCUMULATOR_BITS)), Signal()
        m.d.sync += [gradient.eq(wrap(total)), overflow.eq(wraps(total))]
        return gradient, overflow

    def _random(self, m: Module) -> tuple[Value, Value]:
        """Random bits for the momentum at cycle 5 and, the bits below, for the step at cycle 7; one half for nearest."""
        setting = self.setting
        m.submodules.hash = hash_ = CounterHash()
        m.d.comb += [
            hash_.element.eq(self.element),
            hash_.key_low.eq(setting.key_low),
            hash_.key_high.eq(setting.key_high),
        ]
        random = self._line(m, hash_.random, 3, "random")
        below = Cat(Const(0, COEFFICIENT_BITS), random[3])[:RANDOM_BITS]
        return Mux(setting.stochastic, random[1], half(RANDOM_BITS)), Mux(setting.stochastic, below, half(RANDOM_BITS))

    def _change(self, m: Module, new_momentum: Value, below: Value) -> Value:
        """The momentum at the stored scale, rounded, at cycle 8."""
        left = self.setting.step_left
        wide = STORED_BITS + (1 << _STEP_LEFT_BITS)
        fraction, change = Signal(signed(wide + RANDOM_BITS)), Signal(signed(wide + 1))
        raised = Cat(Const(0, RANDOM_BITS), shift_left(new_momentum, left[:_STEP_LEFT_BITS], wide)).as_signed()
        lowered = fraction_of(new_momentum, (-left)[:5], RANDOM_BITS)
        m.d.sync += [
            fraction.eq(Mux(left[-1], lowered, raised)),
            change.eq((fraction + below)[RANDOM_BITS:].as_signed()),
        ]
        return change

    @staticmethod
    def _line(m: Module, value: Value, cycles: int, name: str) -> list[Any]:
        """A value and what it was 1 to `cycles` cycles ago."""
        line = [value, *(Signal(value.shape(), name=f"{name}_{cycle}") for cycle in range(1, cycles + 1))]
        for before, after in pairwise(line):
            m.d.sync += after.eq(before)
        return line


def _product(m: Module, factor: Value, coefficient: Value) -> Value:
    """A signed factor times an unsigned 8-bit coefficient, one cycle later."""
    product = Signal(signed(_PRODUCT_BITS))
    m.d.sync += product.eq(factor * coefficient)
    return product


def _aligned(m: Module, value: Value, left: Value) -> Value:
    """`align` to `TERM_BITS`, two cycles later: first the right shift and the clamp, then rounding and the left shift."""
    lowered, clamped = Signal(signed(_PRODUCT_BITS + 1)), Signal(signed(TERM_BITS))
    aligned = Signal(signed(TERM_BITS))
    bound = Const(limit_of(TERM_BITS), TERM_BITS - 1) >> left[:-1]
    m.d.sync += [
        lowered.eq(Cat(Const(0, 1), value).as_signed() >> (-left)[: len(left)]),
        clamped.eq(clamp(value, bound)),
        aligned.eq(
            Mux(left[-1], saturate((lowered + 1) >> 1, TERM_BITS), shift_left(clamped, left[:-1], TERM_BITS))
        ),
    ]
    return aligned
