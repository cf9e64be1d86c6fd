"""A post-processor: the lanes of a word, what is measured over them, and the sum of errors for the bias gradient."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import align, joined, sum_of
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.post.post_lane import CODE_BITS, PLACE_BITS, SETTING, PostLane
from fixgrad.machine import Machine
from fixgrad.numbers import ACCUMULATOR_BITS

#: Cycles from a word of accumulators until its word of codes.
POST_LATENCY = 8
#: Cycles from the last word of accumulators until `statistics` and `bias_sum` have taken it.
SETTLE_CYCLES = POST_LATENCY + 2
#: The cycle in which a lane's code is known.
_CODE_CYCLE = POST_LATENCY - 1
#: What a POST measures, as a range register holds it. `magnitudes`: OR of all. `saturated`: elements.
STATISTICS = data.StructLayout({"magnitudes": 32, "saturated": 32, "overflow": 1})


def word_layout(lanes: int) -> data.StructLayout:
    """A word of accumulators with all that its lanes need.

    `accumulators`: 32 bits a lane. `activations`: NG: a byte a lane, of the place that the errors are for. `argmax`: NG:
    a byte a lane, place of the maximum in the window (of no use without pooling). `bias`: FF: stored bias of the channel, 0
    without. `element`: NG: random element of lane 0. `place`: FF: the pixel's place in its pooling window, in raster order.
    `ends_window`: FF: it is the window's last pixel: the window leaves. `ends_channel`: NG: `bias_sum` is complete with this
    word.
    """
    return data.StructLayout(
        {
            "accumulators": ACCUMULATOR_BITS * lanes,
            "activations": 8 * lanes,
            "argmax": PLACE_BITS * lanes,
            "bias": ACCUMULATOR_BITS,
            "element": 32,
            "place": PLACE_BITS,
            "ends_window": 1,
            "ends_channel": 1,
        }
    )


class PostProcessor(wiring.Component):
    """Requantises a word a cycle.

    Members:
        setting: in, see `SETTING`; steady from the first word until the last has left. `bias_shift` (in): left shift of
            a bias to the accumulators' scale, -31 to 31. `images` (in): lanes that hold an image; the others give 0 and
            are not measured. `window` (in): elements of a pooling window, 1 or more.
        words: in, stream of `word_layout`. Always ready in FF. In NG each word makes `window` words, so the next one must
            wait for that many cycles.
        codes: out, {codes: 16 bits a lane, places: FF: a byte a lane, place of the maximum}, with `codes_valid`. There
            is no way to stop it: who feeds words has room for what they make.
        begin: in, clears `statistics` (out, `STATISTICS`).
        bias_sum: out, signed, NG: sum of the channel's 8-bit errors; `bias_sum_valid` (out) for one cycle.
    """

    def __init__(self, machine: Machine) -> None:
        self.lanes = lanes = machine.lanes
        super().__init__(
            {
                "setting": In(SETTING),
                "bias_shift": In(6),
                "images": In(8),
                "window": In(PLACE_BITS),
                "words": In(stream.Signature(word_layout(lanes))),
                "codes": Out(data.StructLayout({"codes": CODE_BITS * lanes, "places": PLACE_BITS * lanes})),
                "codes_valid": Out(1),
                "begin": In(1),
                "statistics": Out(STATISTICS),
                "bias_sum": Out(ACCUMULATOR_BITS),
                "bias_sum_valid": Out(1),
            }
        )

    @property
    def shape(self) -> int:
        """What tells it from other post-processors: see `fixgrad.gateware.pe.sharing`."""
        return self.lanes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word, accepted = self.words.payload, Signal()
        tag = data.StructLayout({"valid": 1, "place": PLACE_BITS, "ends_window": 1, "ends_channel": 1})
        tags = [Signal(tag, name=f"tag_{cycle}") for cycle in range(POST_LATENCY + 1)]
        m.d.comb += [
            accepted.eq(self.words.valid & self.words.ready),
            tags[0].valid.eq(accepted),
            tags[0].place.eq(word.place),
            tags[0].ends_window.eq(accepted & word.ends_window),
            tags[0].ends_channel.eq(accepted & word.ends_channel),
        ]
        for before, after in pairwise(tags):
            m.d.sync += after.eq(before)

        bias, pooled = Signal(ACCUMULATOR_BITS), self.window != 1
        m.d.sync += bias.eq(align(word.bias.as_signed(), self.bias_shift.as_signed(), ACCUMULATOR_BITS))
        emitted = self._emission(m, accepted, tags)
        lanes = [PostLane() for _ in range(self.lanes)]
        for number, lane in enumerate(lanes):
            m.submodules[f"lane_{number}"] = shared(lane, platform)
            m.d.comb += [
                Value.cast(lane.setting).eq(Value.cast(self.setting)),
                lane.number.eq(number),
                lane.live.eq(self.images > number),
                lane.accumulator.eq(word.accumulators.word_select(number, ACCUMULATOR_BITS)),
                lane.activation.eq(word.activations.word_select(number, 8)),
                lane.argmax.eq(Mux(pooled, word.argmax.word_select(number, PLACE_BITS), 0)),
                lane.element.eq(word.element),
                lane.bias.eq(bias),
                lane.take.eq(tags[_CODE_CYCLE].valid),
                lane.begins_window.eq(tags[_CODE_CYCLE].place == 0),
                lane.place.eq(tags[_CODE_CYCLE].place),
                lane.emitted_place.eq(emitted),
            ]
        m.d.comb += [
            self.codes.codes.eq(Cat(lane.out for lane in lanes)),
            self.codes.places.eq(Cat(lane.out_place for lane in lanes)),
        ]
        self._measure(m, lanes, tags)
        self._sum_errors(m, lanes, tags)
        return m

    def _emission(self, m: Module, accepted: Signal, tags: list[data.View]) -> Signal:
        """When words leave: FF: at the end of a window. NG: all the window's elements, one after the other."""
        ng, wait, place, going = self.setting.ng, Signal(PLACE_BITS), Signal(PLACE_BITS), Signal()
        m.d.comb += self.words.ready.eq(wait == 0)
        with m.If(accepted & ng):
            m.d.sync += wait.eq(self.window - 1)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(tags[_CODE_CYCLE].valid & ng):
            m.d.sync += [going.eq(1), place.eq(0)]
        with m.Elif(place == self.window - 1):
            m.d.sync += going.eq(0)
        with m.Else():
            m.d.sync += place.eq(place + 1)
        m.d.comb += self.codes_valid.eq(Mux(ng, going, tags[POST_LATENCY].ends_window))
        return place

    def _measure(self, m: Module, lanes: list[PostLane], tags: list[data.View]) -> None:
        """Range, saturated elements, overflow of the bias addition."""
        statistics = self.statistics
        magnitudes, saturated, overflow = Signal(ACCUMULATOR_BITS), Signal(range(self.lanes + 1)), Signal()
        m.d.sync += [
            overflow.eq(tags[3].valid & Cat(lane.wrapped for lane in lanes).any()),
            magnitudes.eq(Mux(tags[4].valid, joined(lane.magnitude for lane in lanes), 0)),
            saturated.eq(Mux(tags[_CODE_CYCLE].valid, sum_of([lane.saturated for lane in lanes]), 0)),
        ]
        with m.If(self.begin):
            m.d.sync += statistics.eq(0)
        with m.Else():
            m.d.sync += [
                statistics.magnitudes.eq(statistics.magnitudes | magnitudes),
                statistics.saturated.eq(statistics.saturated + saturated),
                statistics.overflow.eq(statistics.overflow | overflow),
            ]

    def _sum_errors(self, m: Module, lanes: list[PostLane], tags: list[data.View]) -> None:
        """The errors of a channel over pixels and lanes."""
        total = Signal(signed(CODE_BITS + self.lanes.bit_length()))
        before = Signal(ACCUMULATOR_BITS)
        m.d.sync += total.eq(sum_of([lane.code for lane in lanes]))
        m.d.sync += self.bias_sum_valid.eq(tags[POST_LATENCY].ends_channel)
        with m.If(self.begin):
            m.d.sync += before.eq(0)
        with m.Elif(tags[POST_LATENCY].valid):
            m.d.sync += [
                self.bias_sum.eq(before + total),
                before.eq(Mux(tags[POST_LATENCY].ends_channel, 0, before + total)),
            ]
