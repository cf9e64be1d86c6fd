"""The counter hash as a pipeline: 32 random bits a cycle for an element index, without multipliers.

Bit-exact to `fixgrad.numbers.hash32`, from the same table of rounds.
"""

from collections.abc import Sequence

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.numbers.counter_hash import HASH_KEY_ROUND, HASH_ROUNDS


class CounterHash(wiring.Component):
    """Random bits of one element a cycle. A round is one register: two additions; the XOR is before the next.

    Args:
        width: of element, key halves and result. (Other widths than 32 are for tests of every value.)
        rounds: (constant, left, right) of each round, as in `HASH_ROUNDS`.

    Members:
        element: in, index of the element; a new one each cycle.
        key_low, key_high: in, halves of the stream's key; steady while elements of the stream are on their way.
        random: out, the bits of the element of `latency` cycles before.
    """

    #: Cycles from an element to its random bits.
    LATENCY = len(HASH_ROUNDS)

    def __init__(self, width: int = 32, rounds: Sequence[tuple[int, int, int]] = HASH_ROUNDS) -> None:
        self.width, self.rounds = width, tuple(rounds)
        super().__init__({"element": In(width), "key_low": In(width), "key_high": In(width), "random": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mixed = self.element ^ self.key_low
        for number, (constant, left, right) in enumerate(self.rounds):
            if number == HASH_KEY_ROUND:
                mixed = mixed ^ self.key_high
            total = Signal(self.width, name=f"round_{number}")
            # A slice keeps the places above the width out of the shifted addition.
            shifted = mixed[: max(self.width - left, 0)] << min(left, self.width)
            m.d.sync += total.eq(mixed + Const(constant, self.width) + shifted)
            mixed = total ^ total[right:]
        m.d.comb += self.random.eq(mixed)
        return m
