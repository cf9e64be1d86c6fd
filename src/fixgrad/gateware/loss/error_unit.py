"""From a power and the sum of its lane to the 8-bit error: a division, minus one-hot, requantised. 18 cycles each."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.counter_hash import CounterHash
from fixgrad.gateware.arithmetic.divider import Divider
from fixgrad.gateware.arithmetic.fixed_point import RANDOM_BITS, absolute, half, saturate, shift_random
from fixgrad.gateware.loss.exponential import POWER_BITS
from fixgrad.gateware.post.post_processor import STATISTICS

#: Cycles from one error to the next.
ERROR_CYCLES = 18
#: Fractional bits of a probability and of the error before it is requantised.
ERROR_FRAC = 15
CODE_BITS = 8
CLASS_BITS = 12
#: Bits of a sum of powers, one for each class.
TOTAL_BITS = CLASS_BITS + POWER_BITS - 1
_QUOTIENT_BITS = ERROR_FRAC + 1

#: A LOSS and its entry of the step table; names as in the instruction table.
LOSS = data.StructLayout(
    {
        "classes": CLASS_BITS,
        "images": 8,
        "frac": signed(8),
        "shift": 5,
        "stochastic": 1,
        "key_low": 32,
        "key_high": 32,
    }
)
#: One class of one image. `last_lane`, `last`: the class's and the micro-batch's last image.
SHARE = data.StructLayout(
    {"power": POWER_BITS, "total": TOTAL_BITS, "is_label": 1, "random_element": 32, "last_lane": 1, "last": 1}
)


class ErrorUnit(wiring.Component):
    """Divides, and requantises the quotient while it divides the next.

    Members:
        loss: in, steady. begin: in, clears `statistics` and `bias_sum`.
        shares: in, stream of `SHARE`.
        errors: out, stream of {code, last}.
        bias_sum, bias_sum_valid, statistics: out, see `LossUnit`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "loss": In(LOSS),
                "begin": In(1),
                "shares": In(stream.Signature(SHARE)),
                "errors": Out(stream.Signature(data.StructLayout({"code": signed(CODE_BITS), "last": 1}))),
                "bias_sum": Out(signed(32)),
                "bias_sum_valid": Out(1),
                "statistics": Out(STATISTICS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.divider = divider = Divider(_QUOTIENT_BITS, TOTAL_BITS)
        share, kept, dividing = self.shares.payload, Signal(SHARE), Signal()
        m.d.comb += [
            self.shares.ready.eq(~dividing & (~self.errors.valid | self.errors.ready)),
            divider.begin.eq(self.shares.valid & self.shares.ready),
            # Rounded: half of the divisor is added.
            divider.dividend.eq(Cat(Const(0, ERROR_FRAC), share.power) + (share.total >> 1)),
            divider.divisor.eq(share.total),
        ]
        with m.If(divider.begin):
            m.d.sync += [kept.eq(share), dividing.eq(1)]
        with m.Elif(divider.done):
            m.d.sync += dividing.eq(0)

        error, divided, rounded = Signal(signed(ERROR_FRAC + 1)), Signal(), Signal()
        wide, code = Signal(signed(ERROR_FRAC + 1)), self.errors.payload.code
        one_hot = Mux(kept.is_label, 1 << ERROR_FRAC, 0)
        m.d.sync += [
            divided.eq(divider.done),
            rounded.eq(divided),
            error.eq(saturate(divider.quotient - one_hot, ERROR_FRAC + 1)),
            wide.eq(shift_random(error, self.loss.shift, self._random(m, kept.random_element))),
        ]
        # When a share is rounded the next one may have begun.
        result, last_lane, last = saturate(wide, CODE_BITS), Signal(), Signal()
        m.d.sync += [last_lane.eq(kept.last_lane), last.eq(kept.last)]
        with m.If(rounded):
            m.d.sync += [code.eq(result), self.errors.payload.last.eq(last), self.errors.valid.eq(1)]
        with m.Elif(self.errors.ready):
            m.d.sync += self.errors.valid.eq(0)

        total = Signal(signed(32))
        m.d.sync += self.bias_sum_valid.eq(rounded & last_lane)
        with m.If(self.begin):
            m.d.sync += [self.statistics.eq(0), total.eq(0)]
        with m.Elif(rounded):
            m.d.sync += [
                self.statistics.magnitudes.eq(self.statistics.magnitudes | absolute(error)),
                self.statistics.saturated.eq(self.statistics.saturated + (result != wide)),
                self.bias_sum.eq(total + result),
                total.eq(Mux(last_lane, 0, total + result)),
            ]
        return m

    def _random(self, m: Module, element: Signal) -> Signal:
        """Of the element that is being divided: the division takes longer than the hash."""
        m.submodules.hash = hash_ = CounterHash()
        random = Signal(RANDOM_BITS)
        m.d.comb += [
            hash_.element.eq(element),
            hash_.key_low.eq(self.loss.key_low),
            hash_.key_high.eq(self.loss.key_high),
            random.eq(Mux(self.loss.stochastic, hash_.random, half(RANDOM_BITS))),
        ]
        return random
