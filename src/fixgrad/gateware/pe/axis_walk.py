"""One axis of the walk over the output pixels: the plan's tables, and where the walk stands in them."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.pe.shape import MAX_RUNS, MAX_SIDE, PeShape


class AxisWalk(wiring.Component):
    """Steps through the runs of one axis. Tables have two banks: one is walked, the other filled with the next plan.

    Members:
        plan: in, a word of a plan; it goes to the bank that is not walked. `plan_valid` (in): it is for this axis.
        begin: in: from the next cycle on, walk the bank filled last (`swap`, in) or the same again, from the first run;
            one cycle later the position is valid.
        step: in, next pixel of the run. restart: in, the run's first pixel. advance: in, the next run's first pixel,
            after the last run the first run's. At most one of the three.
        pixel, base: out, the position in words of the lane memory's and the input buffer's channel.
        inside: out, WG: the pixel meets one of the image.
        last_of_run, last_run: out, this is the run's last pixel; this is the last run.
        empty: out, the plan has no run.
        taps, next_taps: out, FF and NG: the taps that the run and the run after it meet. `all_taps`: every tap.
        tap: out, WG: the run's tap.
        lookup: in, a tap; `offset`, `number` (out, combinational): see `PeShape.tap`.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        tap = shape.tap()
        super().__init__(
            {
                "plan": In(shape.plan_word()),
                "plan_valid": In(1),
                "begin": In(1),
                "swap": In(1),
                "step": In(1),
                "restart": In(1),
                "advance": In(1),
                "pixel": Out(shape.lane_bits),
                "base": Out(shape.input_bits),
                "inside": Out(1),
                "last_of_run": Out(1),
                "last_run": Out(1),
                "empty": Out(1),
                "taps": Out(MAX_SIDE),
                "next_taps": Out(MAX_SIDE),
                "all_taps": Out(MAX_SIDE),
                "tap": Out(4),
                "lookup": In(4),
                "offset": Out(tap["offset"].shape),
                "number": Out(tap["number"].shape),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        bank = Signal()
        plan, word = self.plan, self.plan.word
        m.submodules.runs = runs = Memory(shape=shape.run().size, depth=2 * MAX_RUNS, init=[])
        m.submodules.taps = taps = Memory(shape=shape.tap().size, depth=32, init=[])
        axes = [Signal(shape.axis(), name=f"axis_{number}") for number in range(2)]
        run_write, tap_write = runs.write_port(), taps.write_port()
        m.d.comb += [
            run_write.addr.eq(Cat(plan.index, ~bank)),
            run_write.data.eq(Value.cast(word.run)),
            run_write.en.eq(self.plan_valid & plan.is_run),
            tap_write.addr.eq(Cat(plan.index[:4], ~bank)),
            tap_write.data.eq(Value.cast(word.tap)),
            tap_write.en.eq(self.plan_valid & plan.is_tap),
        ]
        for number, axis in enumerate(axes):
            with m.If(self.plan_valid & plan.is_axis & (bank != number)):
                m.d.sync += axis.eq(word.axis)

        here = Signal(shape.axis())
        m.d.comb += Value.cast(here).eq(Mux(bank, Value.cast(axes[1]), Value.cast(axes[0])))
        tap_read, run_read = taps.read_port(domain="comb"), runs.read_port(domain="comb")
        tap = data.View(shape.tap(), tap_read.data)
        m.d.comb += [
            tap_read.addr.eq(Cat(self.lookup, bank)),
            self.offset.eq(tap.offset),
            self.number.eq(tap.number),
            self.empty.eq(here.empty),
            self.all_taps.eq(here.all_taps),
        ]

        # The run that `advance` takes is read ahead, so that the walk never waits for the table.
        index, next_index, count = Signal(range(MAX_RUNS)), Signal(range(MAX_RUNS)), Signal(shape.lane_bits)
        run = Signal(shape.run())
        following = data.View(shape.run(), run_read.data)
        first = Signal()
        m.d.comb += [run_read.addr.eq(Cat(next_index, bank)), self.next_taps.eq(following.of.taps)]
        m.d.sync += first.eq(self.begin)
        with m.If(self.begin):
            m.d.sync += [bank.eq(bank ^ self.swap), next_index.eq(0)]
        with m.Elif(first | self.advance):
            m.d.sync += [
                run.eq(following),
                self.pixel.eq(following.pixel),
                self.base.eq(following.base),
                count.eq(0),
                index.eq(next_index),
                next_index.eq(Mux(next_index == here.last_run, 0, next_index + 1)),
            ]
        with m.Elif(self.restart):
            m.d.sync += [self.pixel.eq(run.pixel), self.base.eq(run.base), count.eq(0)]
        with m.Elif(self.step):
            m.d.sync += [
                self.pixel.eq(self.pixel + here.pixel_step),
                self.base.eq(self.base + here.base_step),
                count.eq(count + 1),
            ]
        m.d.comb += [
            self.inside.eq((count >= run.of.wg.begin) & (count < run.of.wg.end)),
            self.last_of_run.eq(count == run.last),
            self.last_run.eq(index == here.last_run),
            self.taps.eq(run.of.taps),
            self.tap.eq(run.of.wg.tap),
        ]
        return m
