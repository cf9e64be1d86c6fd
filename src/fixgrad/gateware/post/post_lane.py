"""One lane of a post-processor: bias, rectifier, magnitude, rounding, saturation, window.

    cycle 0   accumulator, activation, argmax, element come
    cycle 1   bias comes
    cycle 2   FF: + bias.  NG: 0 where the activation is not positive        hash, round 1
    cycle 3   FF: rectified, 32 bits; its magnitude                          hash, round 2
    cycle 4   magnitude is out; shifted right by 0 to 3                      hash, round 3
    cycle 5   shifted by the rest, with 32 bits below the point              hash, round 4
    cycle 6   + random bits, or one half
    cycle 7   saturated code
    cycle 8   FF: the largest code of the window so far and its place.  NG: the code, and where it goes
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.counter_hash import CounterHash
from fixgrad.gateware.arithmetic.fixed_point import RANDOM_BITS, absolute, clamp, fraction_of, half, wrap, wraps
from fixgrad.numbers import ACCUMULATOR_BITS

#: Widest output code, and its largest magnitude.
CODE_BITS = 16
LIMIT_BITS = CODE_BITS - 1
#: Bits of the place of an element in a pooling window.
PLACE_BITS = 8

#: What stays as it is from the first word of an instruction until its last has left. `limit`: largest code.
#: `rectify`: FF: 1: negative accumulators become 0, 2: negative codes do; NG: 1: apply the mask.
SETTING = data.StructLayout(
    {
        "ng": 1,
        "rectify": 2,
        "stochastic": 1,
        "shift": 5,
        "limit": LIMIT_BITS,
        "key_low": 32,
        "key_high": 32,
    }
)


class PostLane(wiring.Component):
    """One lane.

    Members; the number is the cycle of a word in which it is taken or given:
        setting: in, see `SETTING`. number: in, constant, of the lane. live: in, the lane holds an image.
        accumulator (0), activation (0): in. argmax (0): in, NG: 0 without pooling. element (0): in, random element of lane 0.
        bias (1): in, at the accumulator's scale.
        wrapped (3): out, the sum with the bias left 32 bits. magnitude (4): out.
        code (7): out, before pooling. saturated (7): out.
        take (7): in, a word is there; begins_window (7): in, it is the first of its window; place (7): in, its place there.
        emitted_place (8): in, NG: place in the window that is emitted.
        out (8): out, the code. out_place (8): out, FF: place of the maximum.
    """

    #: All lanes are the same.
    shape = ()

    def __init__(self) -> None:
        super().__init__(
            {
                "setting": In(SETTING),
                "number": In(8),
                "live": In(1),
                "accumulator": In(signed(ACCUMULATOR_BITS)),
                "activation": In(signed(8)),
                "argmax": In(PLACE_BITS),
                "element": In(32),
                "bias": In(signed(ACCUMULATOR_BITS)),
                "wrapped": Out(1),
                "magnitude": Out(ACCUMULATOR_BITS),
                "code": Out(signed(CODE_BITS)),
                "saturated": Out(1),
                "take": In(1),
                "begins_window": In(1),
                "place": In(PLACE_BITS),
                "emitted_place": In(PLACE_BITS),
                "out": Out(signed(CODE_BITS)),
                "out_place": Out(PLACE_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        setting = self.setting
        accumulator, keep = Signal(signed(ACCUMULATOR_BITS)), Signal()
        total, value = Signal(signed(ACCUMULATOR_BITS + 1)), Signal(signed(ACCUMULATOR_BITS))
        m.d.sync += [
            accumulator.eq(self.accumulator),
            keep.eq(self.live & (~setting.ng | ~setting.rectify.any() | (self.activation > 0))),
            total.eq(Mux(keep, accumulator + Mux(setting.ng, 0, self.bias), 0)),
        ]
        wrapped = wrap(total)
        negative = ~setting.ng & (setting.rectify == 1) & wrapped[-1]
        m.d.sync += [
            value.eq(Mux(negative, 0, wrapped)),
            self.wrapped.eq(wraps(total)),
            self.magnitude.eq(absolute(value)),
        ]

        shift = setting.shift
        partly, fraction = (Signal(signed(ACCUMULATOR_BITS + RANDOM_BITS), name=name) for name in ("partly", "fraction"))
        rounded = Signal(signed(ACCUMULATOR_BITS + RANDOM_BITS + 1))
        m.submodules.hash = hash_ = CounterHash()
        element, random = Signal(32), Mux(setting.stochastic & setting.ng, hash_.random, half(RANDOM_BITS))
        m.d.comb += [
            hash_.element.eq(element),
            hash_.key_low.eq(setting.key_low),
            hash_.key_high.eq(setting.key_high),
        ]
        m.d.sync += [
            element.eq(self.element + self.number),
            partly.eq(fraction_of(value, shift[:2], RANDOM_BITS)),
            fraction.eq(partly >> (shift & 0b11100)),
            rounded.eq(fraction + random),
        ]

        wide = rounded[RANDOM_BITS:].as_signed()
        saturated = clamp(wide, setting.limit)
        m.d.sync += [
            self.code.eq(Mux(~setting.ng & (setting.rectify == 2) & saturated[-1], 0, saturated)),
            self.saturated.eq(saturated != wide),
        ]
        self._window(m)
        return m

    def _window(self, m: Module) -> None:
        """FF: keeps the first of the largest codes. NG: keeps the code, and lets it out at the place of the maximum."""
        argmax, best, place = self.argmax, Signal(signed(CODE_BITS)), self.out_place
        for cycle in range(1, 8):
            later = Signal(PLACE_BITS, name=f"argmax_{cycle}")
            m.d.sync += later.eq(argmax)
            argmax = later
        ng = self.setting.ng
        with m.If(self.take & (ng | self.begins_window | (self.code > best))):
            m.d.sync += [best.eq(self.code), place.eq(Mux(ng, argmax, self.place))]
        m.d.comb += self.out.eq(Mux(ng & (place != self.emitted_place), 0, best))
