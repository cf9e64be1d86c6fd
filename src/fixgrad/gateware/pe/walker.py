"""The walk of a COMPUTE: kernel by kernel over the pixels and taps that meet, one of them a cycle.

    FF, NG:  for kernel in queue: for run, row of run: for run, column of run: for u in row's taps: for v in column's taps
    WG:      for kernel in queue: for u, v in taps: for row of u's rows: for column of v's columns

Only pairs that meet a pixel of the image are in the plan's runs, so the zero padding takes no cycle and there is none to skip.
(With `count_padding` every pair is walked and `inside` tells which count.)
"""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.pe.axis_walk import AxisWalk
from fixgrad.gateware.pe.shape import MAX_SIDE, TAP_BITS, Mode, PeShape

#: Cycles from `begin` until the first step.
WALK_CYCLES = 2


def step_layout(shape: PeShape) -> data.StructLayout:
    """A step of the walk.

    `kernel`: the kernel. `number`: taps of the kernels before it. `pixel`: word in its channel of the lane memory.
    `row_base`, `column_base`, `row_offset`, `column_offset`: their sum is the word in its channel of the input buffer.
    `tap`: number of the tap. `inside`: it meets a pixel of the image. `first`, `last`: of the pixel's taps (FF, NG).
    `last_pixel`: of the tap's (WG). `last_step`: of the kernel.
    """
    flags = dict.fromkeys(("inside", "first", "last", "last_pixel", "last_step"), 1)
    words = dict.fromkeys(("row_base", "column_base", "row_offset", "column_offset"), shape.input_bits)
    numbers = {"number": shape.gradient_bits, "pixel": shape.lane_bits, "tap": TAP_BITS}
    return data.StructLayout({"kernel": shape.head(), **numbers, **words, **flags})


class Walker(wiring.Component):
    """Turns kernels into steps.

    Members:
        plan, plan_valid: in, a word of the next plan.
        command: in, what the walk is for; steady from `begin` until `ended`.
        begin: in, start; not while a walk is going on.
        kernels: in, stream: heads of the kernel queue.
        steps: out, stream.
        ended: out, the end mark was taken: no step follows until `begin`.
        waiting: out, a step could be taken and no kernel is there.
        skipped_words: out, words of a kernel that is taken in this cycle without a step, because the plan is empty; else 0.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "plan": In(shape.plan_word()),
                "plan_valid": In(1),
                "command": In(shape.command()),
                "begin": In(1),
                "kernels": In(stream.Signature(shape.head())),
                "steps": Out(stream.Signature(step_layout(shape))),
                "ended": Out(1, init=1),
                "waiting": Out(1),
                "skipped_words": Out(5),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = AxisWalk(self.shape)
        m.submodules.columns = columns = AxisWalk(self.shape)
        for axis, is_columns in ((rows, 0), (columns, 1)):
            m.d.comb += [
                Value.cast(axis.plan).eq(Value.cast(self.plan)),
                axis.plan_valid.eq(self.plan_valid & (self.plan.columns == is_columns)),
                axis.begin.eq(self.begin),
                axis.swap.eq(~self.command.keep_plan),
            ]
        ready, step = Signal(2), Signal()
        wg, empty = Signal(), Signal()
        m.d.comb += [wg.eq(self.command.mode == Mode.WG), empty.eq(rows.empty | columns.empty)]
        self._control(m, ready, step, empty)

        row_rest, column_rest, first_tap = Signal(MAX_SIDE), Signal(MAX_SIDE), Signal()
        last_tap, last_pixel, last_column = Signal(), Signal(), Signal()
        m.d.comb += last_tap.eq(_is_single(row_rest) & _is_single(column_rest))
        m.d.comb += last_pixel.eq(columns.last_of_run & rows.last_of_run)
        m.d.comb += last_column.eq(columns.last_of_run & columns.last_run)
        payload = self.steps.payload
        self._position(m, rows, columns, wg, row_rest, column_rest)
        m.d.comb += [payload.last_pixel.eq(last_pixel), payload.first.eq(first_tap)]
        with m.If(wg):
            m.d.comb += payload.last_step.eq(last_pixel & columns.last_run & rows.last_run)
            with m.If(step):
                self._next_pixel(m, rows, columns)
        with m.Else():
            m.d.comb += [
                payload.last.eq(last_tap),
                payload.last_step.eq(last_tap & last_column & rows.last_of_run & rows.last_run),
            ]
            with m.If(step):
                m.d.sync += first_tap.eq(last_tap)
                self._next_tap(m, rows, columns, row_rest, column_rest, last_column)
        with m.If(ready == 1):  # the first runs are read in this cycle
            m.d.sync += [
                first_tap.eq(1),
                row_rest.eq(self._walked(rows, rows.next_taps)),
                column_rest.eq(self._walked(columns, columns.next_taps)),
            ]
        return m

    def _walked(self, axis: AxisWalk, taps: Value) -> Value:
        """The taps to walk through, of those that meet the image."""
        return Mux(self.command.count_padding, axis.all_taps, taps)

    def _control(self, m: Module, ready: Signal, step: Signal, empty: Signal) -> None:
        """Takes kernels: one for the steps of a walk, all at once where the plan is empty, and the end mark."""
        head, payload = self.kernels.payload, self.steps.payload
        number = Signal(self.shape.gradient_bits)
        going = Signal()
        m.d.comb += [
            going.eq((ready == 2) & ~self.ended),
            self.steps.valid.eq(going & self.kernels.valid & ~head.end & ~empty),
            step.eq(self.steps.valid & self.steps.ready),
            self.kernels.ready.eq(going & (head.end | empty | (step & payload.last_step))),
            self.waiting.eq(going & ~self.kernels.valid & self.steps.ready),
            self.skipped_words.eq(Mux(going & empty & self.kernels.valid & ~head.end, head.words, 0)),
            Value.cast(payload.kernel).eq(Value.cast(head)),
            payload.number.eq(number),
        ]
        with m.If(self.begin):
            m.d.sync += [ready.eq(1), self.ended.eq(0)]
            with m.If(~self.command.number_on):
                m.d.sync += number.eq(0)
        with m.Elif(ready == 1):
            m.d.sync += ready.eq(2)
        with m.Elif(self.kernels.valid & self.kernels.ready):
            with m.If(head.end):
                m.d.sync += [self.ended.eq(1), ready.eq(0)]
            with m.Else():
                m.d.sync += number.eq(number + self.command.taps)

    def _position(
        self, m: Module, rows: AxisWalk, columns: AxisWalk, wg: Signal, row_rest: Signal, column_rest: Signal
    ) -> None:
        payload = self.steps.payload
        for axis, rest in ((rows, row_rest), (columns, column_rest)):
            m.d.comb += axis.lookup.eq(Mux(wg, axis.tap, _lowest(rest)))
        meets = ((rows.taps & _single(row_rest)).any()) & ((columns.taps & _single(column_rest)).any())
        m.d.comb += [
            payload.pixel.eq(rows.pixel + columns.pixel),
            payload.row_base.eq(rows.base),
            payload.row_offset.eq(rows.offset),
            payload.column_base.eq(columns.base),
            payload.column_offset.eq(columns.offset),
            payload.tap.eq(rows.number + columns.number),
            payload.inside.eq(Mux(wg, rows.inside & columns.inside, meets)),
        ]

    def _next_pixel(self, m: Module, rows: AxisWalk, columns: AxisWalk) -> None:
        """WG: the next pixel of the tap, else the first one of the next tap."""
        with m.If(~columns.last_of_run):
            m.d.comb += columns.step.eq(1)
        with m.Elif(~rows.last_of_run):
            m.d.comb += [columns.restart.eq(1), rows.step.eq(1)]
        with m.Else():
            m.d.comb += [columns.advance.eq(1), rows.advance.eq(columns.last_run), rows.restart.eq(~columns.last_run)]

    def _next_tap(
        self, m: Module, rows: AxisWalk, columns: AxisWalk, row_rest: Signal, column_rest: Signal, last_column: Signal
    ) -> None:
        """FF, NG: the next tap of the pixel, else the first one of the next pixel."""
        with m.If(~_is_single(column_rest)):
            m.d.sync += column_rest.eq(_without_lowest(column_rest))
        with m.Elif(~_is_single(row_rest)):
            m.d.sync += [column_rest.eq(self._walked(columns, columns.taps)), row_rest.eq(_without_lowest(row_rest))]
        with m.Else():
            column_taps, row_taps = Signal(MAX_SIDE), Signal(MAX_SIDE)
            m.d.comb += [
                columns.step.eq(~columns.last_of_run),
                columns.advance.eq(columns.last_of_run),
                column_taps.eq(Mux(columns.last_of_run, columns.next_taps, columns.taps)),
                rows.step.eq(last_column & ~rows.last_of_run),
                rows.advance.eq(last_column & rows.last_of_run),
                row_taps.eq(Mux(last_column & rows.last_of_run, rows.next_taps, rows.taps)),
            ]
            m.d.sync += [
                column_rest.eq(self._walked(columns, column_taps)),
                row_rest.eq(self._walked(rows, row_taps)),
            ]


def _without_lowest(bits: Value) -> Value:
    return bits & (bits - 1)


def _single(bits: Value) -> Value:
    """The lowest bit that is set, alone."""
    return bits & ~(bits - 1)


def _is_single(bits: Value) -> Value:
    """Whether one bit is set, of bits that are not all zero."""
    return ~_without_lowest(bits).any()


def _lowest(bits: Value) -> Value:
    """The number of the lowest bit that is set; 0 where none is."""
    index: Value = Value.cast(0)
    for position in reversed(range(len(bits))):
        index = Mux(bits[position], position, index)
    return index
