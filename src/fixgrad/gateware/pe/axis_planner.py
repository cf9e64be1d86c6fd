"""Plans one axis of a walk: which taps of a kernel meet the image, for each row or each column of the output.

Rows and columns are independent, so a plan is two short tables. In FF and NG a table holds runs of neighbouring pixels that
meet the same taps. In WG it holds for each tap the run of pixels that it meets. With

    FF, WG   position(q, v) = q stride + v dilation - pad
    NG       position(q, v) = (q + pad - v dilation) / stride, where that is whole

a pair of a pixel q and a tap v meets the image where 0 <= position < size. In NG the pixels are taken in classes: those with
the same remainder (q + pad) mod stride meet the same taps, and whole positions move by 1 from one to the next.

How many runs: from pixel to pixel of a class, each of its taps enters the image at most once and leaves it at most once. So
the classes together have at most 2 k - 1 runs that meet a tap, 29 for the widest kernel (k = 15). With `count_padding` there is
up to one more for each class before and after: at most 2 k + stride.
"""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.divider import Divider
from fixgrad.gateware.pe.shape import COORDINATE_BITS, MAX_RUNS, MAX_SIDE, TAP_BITS, Mode, PeShape

#: Positions: a coordinate times a stride, and taps in front of the image.
_POSITION = signed(COORDINATE_BITS + 6)
#: Words in a plan; no memory has more than 2**14.
_WORD_BITS = 16
_QUOTIENT_BITS = COORDINATE_BITS + 1


class AxisPlanner(wiring.Component):
    """Enumerates pixels and taps, a pair a cycle: n pixels and k taps take about n (k + 1) cycles in FF and NG,
    (n + 1) k in WG; 24 more where a stride divides positions.

    Members:
        begin: in. done: out, for one cycle, when the last word has left.
        mode, count_padding, kernel, stride, pad, dilation, size: in, of the COMPUTE on this axis, steady until `done`.
            A stride of 0 counts as 1. A kernel of 0 taps and a rectangle without pixels make an empty plan.
        in_begin, in_unit: in, first coordinate in the input buffer, and words from one to the next.
        out_begin, out_end, out_unit: in, the output pixels, and words of the lane memory from one to the next.
        number_unit: in, numbers of taps from one to the next.
        word, word_valid: out, a word of the plan (all but `columns`).
        too_many_runs: out, with `done`.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "begin": In(1),
                "done": Out(1),
                "mode": In(Mode),
                "count_padding": In(1),
                **dict.fromkeys(("kernel", "stride", "pad", "dilation"), In(4)),
                **dict.fromkeys(("size", "in_begin", "in_unit", "out_begin", "out_end", "out_unit"), In(COORDINATE_BITS)),
                "number_unit": In(4),
                "word": Out(shape.plan_word()),
                "word_valid": Out(1),
                "too_many_runs": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        at = _Registers(self)
        m.d.comb += [
            at.stride.eq(Mux(self.stride == 0, 1, self.stride)),
            at.ng.eq(self.mode == Mode.NG),
            at.last_tap.eq(at.tap == self.kernel - 1),
            at.last_pixel.eq(at.pixel.coordinate + at.pixel_stride >= self.out_end),
            at.meets.eq((at.tap_remainder == at.remainder) & (at.here >= 0) & (at.here < self.size)),
            at.pixel_stride.eq(Mux(at.ng, at.stride, 1)),
            at.here.eq(at.pixel.position + at.tap_position),
            self.word.index.eq(at.index),
        ]
        with m.FSM():
            with m.State("wait"):
                m.d.sync += [at.index.eq(0), self.too_many_runs.eq(0), at.open.eq(0)]
                with m.If(self.begin):
                    m.next = "quotients"
            self._quotients(m, at)
            self._products(m, at)
            self._taps(m, at)
            self._pixels_of_a_class(m, at)
            self._pixels_of_a_tap(m, at)
            with m.State("end"):
                self._end(m, at)
                m.next = "wait"
        return m

    def _quotients(self, m: Module, at: "_Registers") -> None:
        """NG: position and remainder of the first pixel; what a tap moves them by."""
        m.submodules.divider = divider = Divider(_QUOTIENT_BITS, 4)
        m.d.comb += divider.divisor.eq(at.stride)
        first = Signal(_QUOTIENT_BITS)
        m.d.comb += first.eq(self.out_begin + self.pad)
        with m.State("quotients"):
            m.d.sync += [
                at.origin.eq(first),
                at.remainder.eq(0),
                at.tap_quotient.eq(self.dilation),
                at.tap_rest.eq(0),
            ]
            m.next = "products"
            with m.If(at.ng & (at.stride != 1)):
                m.d.comb += [divider.begin.eq(1), divider.dividend.eq(first)]
                m.next = "divide pixel"
        with m.State("divide pixel"), m.If(divider.done):
            m.d.comb += [divider.begin.eq(1), divider.dividend.eq(self.dilation)]
            m.d.sync += [at.origin.eq(divider.quotient), at.remainder.eq(divider.remainder)]
            m.next = "divide tap"
        with m.State("divide tap"), m.If(divider.done):
            m.d.sync += [at.tap_quotient.eq(divider.quotient), at.tap_rest.eq(divider.remainder)]
            m.next = "products"

    def _products(self, m: Module, at: "_Registers") -> None:
        """Positions in words, by one multiplier in turn."""
        left, right, product = Signal(_POSITION), Signal(COORDINATE_BITS), Signal(_WORD_BITS)
        m.d.comb += product.eq(left * right)
        with m.State("products"):
            m.d.comb += [left.eq(self.out_begin), right.eq(at.stride)]
            with m.If(~at.ng):
                m.d.sync += at.origin.eq(product.as_signed() - self.pad)
            m.next = "words of the first pixel"
        with m.State("words of the first pixel"):
            m.d.comb += [left.eq(at.origin - self.in_begin), right.eq(self.in_unit)]
            m.d.sync += [at.first.words.eq(product), at.first.position.eq(at.origin)]
            m.d.sync += [at.first.coordinate.eq(self.out_begin), at.first.lane_words.eq(0)]
            m.next = "words of a pixel"
        with m.State("words of a pixel"):
            m.d.comb += [left.eq(Mux(at.ng, 1, at.stride)), right.eq(self.in_unit)]
            m.d.sync += at.words_step.eq(product)
            m.next = "words of a tap"
        with m.State("words of a tap"):
            m.d.comb += [left.eq(at.tap_quotient), right.eq(self.in_unit)]
            m.d.sync += at.tap_words_step.eq(product)
            m.next = "words of the lanes"
        with m.State("words of the lanes"):
            m.d.comb += [left.eq(at.pixel_stride), right.eq(self.out_unit)]
            m.d.sync += at.lane_step.eq(product)
            at.first_tap(m)
            m.next = "taps"
            with m.If((self.kernel == 0) | (self.out_begin >= self.out_end)):
                m.next = "end"

    def _taps(self, m: Module, at: "_Registers") -> None:
        """The table of taps."""
        with m.State("taps"):
            tap = self.word.word.tap
            m.d.comb += [
                self.word.is_tap.eq(1),
                self.word_valid.eq(1),
                self.word.index.eq(at.tap),
                tap.offset.eq(at.tap_words),
                tap.number.eq(at.tap_number),
            ]
            m.d.sync += [at.pixel.eq(at.first), at.classes.eq(Mux(at.ng, at.stride, 1))]
            at.next_tap(m, self)
            with m.If(at.last_tap):
                at.first_tap(m)
                m.next = "pixels of a class"
                with m.If(self.mode == Mode.WG):
                    at.forget(m)
                    m.next = "pixels of a tap"

    def _pixels_of_a_class(self, m: Module, at: "_Registers") -> None:
        """FF, NG: for class: for pixel: for tap."""
        with m.State("pixels of a class"):
            met = Signal(MAX_SIDE)
            m.d.comb += met.eq(at.taps | Mux(at.meets, 1 << at.tap, 0))
            m.d.sync += at.taps.eq(met)
            at.next_tap(m, self)
            with m.If(at.last_tap):
                m.next = "pixel"
        with m.State("pixel"):
            at.first_tap(m)
            at.next_pixel(m)
            m.d.sync += at.taps.eq(0)
            with m.If(at.open & (at.run_taps == at.taps)):
                m.d.sync += at.run_last.eq(at.run_last + 1)
            with m.Else():
                self._write_run(m, at, at.open)
                m.d.sync += [
                    at.open.eq(at.taps.any() | self.count_padding),
                    at.run_taps.eq(at.taps),
                    at.run_last.eq(0),
                    at.run_lane_words.eq(at.pixel.lane_words),
                    at.run_words.eq(at.pixel.words),
                ]
            m.next = "pixels of a class"
            with m.If(at.last_pixel):
                m.next = "class"
        with m.State("class"):
            self._write_run(m, at, at.open)
            m.d.sync += [at.open.eq(0), at.classes.eq(at.classes - 1)]
            at.next_class(m, self)
            m.next = "pixels of a class"
            with m.If((at.classes == 1) | (at.first.coordinate + 1 >= self.out_end)):
                m.next = "end"

    def _pixels_of_a_tap(self, m: Module, at: "_Registers") -> None:
        """WG: for tap: for pixel. The pixels that a tap meets follow one another."""
        with m.State("pixels of a tap"):
            at.next_pixel(m)
            m.d.sync += at.run_last.eq(at.run_last + 1)
            with m.If(at.meets):
                m.d.sync += [at.open.eq(1), at.met_end.eq(at.run_last + 1)]
                with m.If(~at.open):
                    m.d.sync += [
                        at.met_begin.eq(at.run_last),
                        at.run_lane_words.eq(at.pixel.lane_words),
                        at.run_words.eq(at.pixel.words),
                    ]
            with m.If(at.last_pixel):
                m.next = "tap"
        with m.State("tap"):
            run, met = self.word.word.run, at.met_end - at.met_begin
            self._write_run(m, at, at.open | self.count_padding)
            m.d.comb += run.of.wg.tap.eq(at.tap)
            with m.If(self.count_padding):
                m.d.comb += [
                    run.last.eq(at.run_last - 1),
                    run.pixel.eq(0),
                    run.base.eq(at.first.words),
                    run.of.wg.begin.eq(at.met_begin),
                    run.of.wg.end.eq(at.met_end),
                ]
            with m.Else():
                m.d.comb += [run.last.eq(met - 1), run.of.wg.begin.eq(0), run.of.wg.end.eq(met)]
            m.d.sync += at.pixel.eq(at.first)
            at.next_tap(m, self)
            at.forget(m)
            m.next = "pixels of a tap"
            with m.If(at.last_tap):
                m.next = "end"

    def _write_run(self, m: Module, at: "_Registers", valid: Value) -> None:
        """Appends the run at hand to the table."""
        run = self.word.word.run
        m.d.comb += [
            self.word.is_run.eq(1),
            run.last.eq(at.run_last),
            run.pixel.eq(at.run_lane_words),
            run.base.eq(at.run_words),
        ]
        with m.If(self.mode != Mode.WG):
            m.d.comb += run.of.taps.eq(at.run_taps)
        with m.If(valid & (at.index == MAX_RUNS)):
            m.d.sync += self.too_many_runs.eq(1)
        with m.Elif(valid):
            m.d.comb += self.word_valid.eq(1)
            m.d.sync += at.index.eq(at.index + 1)

    def _end(self, m: Module, at: "_Registers") -> None:
        axis = self.word.word.axis
        m.d.comb += [
            self.done.eq(1),
            self.word_valid.eq(1),
            self.word.is_axis.eq(1),
            axis.last_run.eq(at.index - 1),
            axis.empty.eq(at.index == 0),
            axis.pixel_step.eq(at.lane_step),
            axis.base_step.eq(at.words_step),
            axis.all_taps.eq((1 << self.kernel) - 1),
        ]


class _Registers:
    """Where the enumeration stands."""

    def __init__(self, of: AxisPlanner) -> None:
        shape = of.shape
        place = {
            "coordinate": COORDINATE_BITS + 1,
            "position": _POSITION,
            "words": shape.input_bits,
            "lane_words": shape.lane_bits,
        }
        self.stride, self.ng = Signal(4), Signal()
        self.last_tap, self.last_pixel, self.meets = Signal(), Signal(), Signal()
        # The pixel at hand and the first one of its class, with its position and words.
        self.pixel, self.first = Signal(data.StructLayout(place)), Signal(data.StructLayout(place))
        self.origin, self.here = Signal(_POSITION), Signal(_POSITION)
        self.remainder, self.classes, self.pixel_stride = Signal(4), Signal(4), Signal(4)
        self.words_step, self.lane_step = Signal(shape.input_bits), Signal(shape.lane_bits)
        # The tap at hand.
        self.tap, self.tap_position, self.tap_remainder = Signal(4), Signal(_POSITION), Signal(4)
        self.tap_words, self.tap_number = Signal(shape.input_bits), Signal(TAP_BITS)
        self.tap_quotient, self.tap_rest, self.tap_words_step = Signal(4), Signal(4), Signal(shape.input_bits)
        # The run at hand.
        self.index, self.open = Signal(range(MAX_RUNS + 1)), Signal()
        self.taps, self.run_taps = Signal(MAX_SIDE), Signal(MAX_SIDE)
        self.run_last, self.run_words = Signal(shape.lane_bits + 1), Signal(shape.input_bits)
        self.run_lane_words = Signal(shape.lane_bits)
        self.met_begin, self.met_end = Signal(shape.lane_bits + 1), Signal(shape.lane_bits + 1)

    def first_tap(self, m: Module) -> None:
        """Go to tap 0."""
        for register in (self.tap, self.tap_position, self.tap_remainder, self.tap_words, self.tap_number):
            m.d.sync += register.eq(0)

    def next_tap(self, m: Module, of: AxisPlanner) -> None:
        """Go to the next tap."""
        m.d.sync += [self.tap.eq(self.tap + 1), self.tap_number.eq(self.tap_number + of.number_unit)]
        rest, carry = Signal(5), Signal()
        m.d.comb += [rest.eq(self.tap_remainder + self.tap_rest), carry.eq(rest >= self.stride)]
        with m.If(self.ng):
            m.d.sync += [
                self.tap_remainder.eq(Mux(carry, rest - self.stride, rest)),
                self.tap_position.eq(self.tap_position - self.tap_quotient - carry),
                self.tap_words.eq(self.tap_words - self.tap_words_step - Mux(carry, of.in_unit, 0)),
            ]
        with m.Else():
            m.d.sync += [
                self.tap_position.eq(self.tap_position + of.dilation),
                self.tap_words.eq(self.tap_words + self.tap_words_step),
            ]

    def next_pixel(self, m: Module) -> None:
        """Go to the next pixel of the class."""
        pixel = self.pixel
        m.d.sync += [
            pixel.coordinate.eq(pixel.coordinate + self.pixel_stride),
            pixel.position.eq(pixel.position + Mux(self.ng, 1, self.stride)),
            pixel.words.eq(pixel.words + self.words_step),
            pixel.lane_words.eq(pixel.lane_words + self.lane_step),
        ]

    def next_class(self, m: Module, of: AxisPlanner) -> None:
        """NG: go to the first pixel of the next class."""
        first, whole = self.first, Signal()
        m.d.comb += whole.eq(self.remainder + 1 == self.stride)
        m.d.sync += self.remainder.eq(Mux(whole, 0, self.remainder + 1))
        for place in (self.first, self.pixel):
            m.d.sync += [
                place.coordinate.eq(first.coordinate + 1),
                place.position.eq(first.position + whole),
                place.words.eq(first.words + Mux(whole, of.in_unit, 0)),
                place.lane_words.eq(first.lane_words + of.out_unit),
            ]

    def forget(self, m: Module) -> None:
        """No pixel met so far."""
        for register in (self.open, self.run_last, self.met_begin, self.met_end):
            m.d.sync += register.eq(0)
