"""From a step of the walk to the addresses of its operands: three registers."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import product_of_words
from fixgrad.gateware.pe.shape import TAP_BITS, PeShape
from fixgrad.gateware.pe.walker import step_layout
from fixgrad.machine.parameters import TAPS_PER_WORD

#: Cycles from a step of the walk until its operands may be read.
ADDRESS_CYCLES = 3


def access_layout(shape: PeShape) -> data.StructLayout:
    """A step with its addresses.

    `input`: in the input buffer. `lane`: of the accumulator or error. `weights`: word in the kernel queue; `place`: of the
    weight in it. `gradient`: in the gradient memory. `words`: of the kernel, to give back after its last step, else 0.
    The other flags as in `step_layout`.
    """
    addresses = {
        "input": shape.input_bits,
        "lane": shape.lane_bits,
        "weights": shape.kernel_bits,
        "place": 4,
        "gradient": shape.gradient_bits,
        "words": 5,
    }
    return data.StructLayout({**addresses, **dict.fromkeys(("inside", "first", "last", "last_pixel"), 1)})


class Addresses(wiring.Component):
    """Sums up addresses, all modulo their memories.

        input  = buffer + i slot_words + row_base + column_base + row_offset + column_offset
        lane   = lane_base + o lane_slot_words + pixel
        gradient = gradient_base + number + tap

    Members:
        command: in, steady while steps are on their way.
        steps: in, stream. accesses: out, stream; both move together, without gaps being closed.
        busy: out, a step is on its way.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "command": In(shape.command()),
                "steps": In(stream.Signature(step_layout(shape))),
                "accesses": Out(stream.Signature(access_layout(shape))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, command, step, access = self.shape, self.command, self.steps.payload, self.accesses.payload
        move, valid = Signal(), Signal(ADDRESS_CYCLES)
        m.d.comb += [
            move.eq(self.accesses.ready | ~self.accesses.valid),
            self.steps.ready.eq(move),
            self.accesses.valid.eq(valid[-1]),
            self.busy.eq(valid.any()),
        ]

        flags = dict.fromkeys(("inside", "first", "last", "last_pixel"), 1)
        passed = data.StructLayout({**flags, "words": 5})
        stages = [Signal(passed, name=f"passed_{number}") for number in range(2)]
        row, column, slot = (Signal(shape.input_bits, name=name) for name in ("row", "column", "input_slot"))
        lane_slot, pixel = Signal(shape.lane_bits), Signal(shape.lane_bits)
        tap, number = Signal(TAP_BITS), Signal(shape.gradient_bits)
        first_word = Signal(shape.kernel_bits)
        in_channel, channel = Signal(shape.input_bits), Signal(shape.input_bits)
        lane, gradient = Signal(shape.lane_bits), Signal(shape.gradient_bits)
        weights, place = Signal(shape.kernel_bits), Signal(4)
        # Division of a tap's number by 9: a table of 256 lines takes a few LUTs.
        places = [divmod(number, TAPS_PER_WORD) for number in range(1 << TAP_BITS)]
        word_and_place = data.StructLayout({"word": 5, "place": 4})
        m.submodules.places = memory = Memory(
            shape=word_and_place, depth=len(places), init=[{"word": word, "place": place} for word, place in places]
        )
        place_of = memory.read_port(domain="comb")
        m.d.comb += place_of.addr.eq(tap)
        with m.If(move):
            m.d.sync += valid.eq(valid << 1 | self.steps.valid)
            m.d.sync += [
                row.eq(step.row_base + step.row_offset),
                column.eq(step.column_base + step.column_offset),
                slot.eq(product_of_words(step.kernel.in_, command.slot_words, shape.input_bits)),
                lane_slot.eq(product_of_words(step.kernel.out, command.lane_slot_words, shape.lane_bits)),
                pixel.eq(step.pixel),
                tap.eq(step.tap),
                number.eq(step.number),
                first_word.eq(step.kernel.first_word),
                *(stages[0][name].eq(step[name]) for name in flags),
                stages[0].words.eq(step.kernel.words & step.last_step.replicate(5)),
            ]
            m.d.sync += [
                in_channel.eq(row + column),
                channel.eq(slot + command.buffer),
                lane.eq(lane_slot + pixel),
                gradient.eq(number + tap),
                weights.eq(first_word + place_of.data.word),
                place.eq(place_of.data.place),
                stages[1].eq(stages[0]),
            ]
            m.d.sync += [
                access.input.eq(in_channel + channel),
                access.lane.eq(lane + command.lane_base),
                access.gradient.eq(gradient + command.gradient_base),
                access.weights.eq(weights),
                access.place.eq(place),
                *(access[name].eq(stages[1][name]) for name in (*flags, "words")),
            ]
        return m
