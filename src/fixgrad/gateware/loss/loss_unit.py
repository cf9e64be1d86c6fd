"""The gradient of softmax cross-entropy for a micro-batch, requantised like any other error.

It takes the logits three times, in the order of memory (class by class, lane by lane), and keeps two numbers for each lane:

    pass 1   the largest logit                                        1 cycle an element
    pass 2   the sum of exp(logit - largest)                          1 cycle
    pass 3   (exp 2**15 + sum / 2) / sum - one-hot, requantised       18 cycles
"""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.loss.error_unit import CLASS_BITS, CODE_BITS, ERROR_CYCLES, LOSS, TOTAL_BITS, ErrorUnit
from fixgrad.gateware.loss.exponential import EXPONENTIAL_LATENCY, LOGIT_BITS, POWER_BITS, Exponential, ExponentialTable
from fixgrad.gateware.post.post_processor import STATISTICS
from fixgrad.machine import Machine

#: Cycles for one class of one image, all passes.
LOSS_CYCLES_PER_CLASS = 1 + 1 + ERROR_CYCLES
#: Cycles that a LOSS takes beyond those, when logits and errors never wait.
LOSS_OVERHEAD = 10


class Pass(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Which time an element comes, or that there is none."""

    LARGEST = 0
    SUM = 1
    ERROR = 2
    NONE = 3


class LossUnit(wiring.Component):
    """The loss of one micro-batch.

    Members:
        loss: in, steady while busy. begin: in, start, while not busy; clears `statistics`. busy: out.
        done: out, for one cycle: the last error has been taken (without an element: in the cycle after `begin`).
        label: in, {enable, lane, label}: writes the label of a lane; not while busy.
        logits: in, stream of {logit, element}, three times classes x images of them. element: random element of the class
            for image 0 of the micro-batch; used in pass 3 alone.
        errors: out, stream of {code, last}, classes x images of them.
        bias_sum: out, signed, sum of a class's codes; `bias_sum_valid` (out) for one cycle, with the last error of the class.
        statistics: out, as in `fixgrad.gateware.post`: of the errors before and after they were requantised.
    """

    def __init__(self, machine: Machine, table: ExponentialTable) -> None:
        self.lanes, self.table = machine.lanes, table
        self.lane_shape = range(max(machine.lanes, 2))
        super().__init__(
            {
                "loss": In(LOSS),
                "begin": In(1),
                "busy": Out(1),
                "done": Out(1),
                "label": In(data.StructLayout({"enable": 1, "lane": self.lane_shape, "label": 16})),
                "logits": In(stream.Signature(data.StructLayout({"logit": signed(LOGIT_BITS), "element": 32}))),
                "errors": Out(stream.Signature(data.StructLayout({"code": signed(CODE_BITS), "last": 1}))),
                "bias_sum": Out(signed(32)),
                "bias_sum_valid": Out(1),
                "statistics": Out(STATISTICS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.error_unit = error_unit = ErrorUnit()
        wiring.connect(m, error_unit.errors, wiring.flipped(self.errors))
        m.d.comb += [
            Value.cast(error_unit.loss).eq(Value.cast(self.loss)),
            error_unit.begin.eq(self.begin),
            self.bias_sum.eq(error_unit.bias_sum),
            self.bias_sum_valid.eq(error_unit.bias_sum_valid),
            self.statistics.eq(error_unit.statistics),
        ]
        # An element that comes in this cycle (pass NONE: there is none), and what it was on its way through the exponential.
        flags = dict.fromkeys(("first_class", "is_label", "last_lane", "last"), 1)
        layout = data.StructLayout({"pass_": Pass, "lane": self.lane_shape, "random_element": 32, **flags})
        element, room = Signal(layout), Signal()
        self._count(m, element, room)
        power = self._power(m, element)
        arrived: data.View = element
        for cycle in range(1, EXPONENTIAL_LATENCY + 1):
            later = Signal(layout, init={"pass_": Pass.NONE}, name=f"element_{cycle}")
            m.d.sync += later.eq(arrived)
            arrived = later
        self._share(m, element, arrived, power, room, error_unit.shares)
        return m

    def _count(self, m: Module, element: data.View, room: Signal) -> None:
        """Which element comes next. In pass 3 each waits for `room`."""
        pass_, class_, lane = Signal(Pass, init=Pass.NONE), Signal(CLASS_BITS), Signal(self.lane_shape)
        last_lane, last_class, nothing, taken = Signal(), Signal(), Signal(), Signal()
        m.submodules.labels = labels = Memory(shape=16, depth=self.lanes, init=[])
        write, read = labels.write_port(), labels.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.label.lane),
            write.data.eq(self.label.label),
            write.en.eq(self.label.enable),
            read.addr.eq(lane),
            last_lane.eq(lane + 1 == self.loss.images),
            last_class.eq(class_ + 1 == self.loss.classes),
            nothing.eq((self.loss.images == 0) | (self.loss.classes == 0)),
            self.logits.ready.eq((pass_ != Pass.NONE) & ((pass_ != Pass.ERROR) | room)),
            taken.eq(self.logits.valid & self.logits.ready),
            element.pass_.eq(Mux(taken, pass_.as_value(), Pass.NONE)),
            element.lane.eq(lane),
            element.first_class.eq(class_ == 0),
            element.is_label.eq(read.data == class_),
            element.last_lane.eq(last_lane),
            element.last.eq(last_lane & last_class),
            element.random_element.eq(self.logits.payload.element + lane),
        ]
        ended = self.errors.valid & self.errors.ready & self.errors.payload.last
        m.d.sync += self.done.eq((self.begin & nothing) | ended)
        with m.If(self.begin):
            m.d.sync += [pass_.eq(Mux(nothing, Pass.NONE, Pass.LARGEST)), class_.eq(0), lane.eq(0)]
            m.d.sync += self.busy.eq(~nothing)
        with m.Elif(ended):
            m.d.sync += self.busy.eq(0)
        with m.Elif(taken):
            m.d.sync += lane.eq(Mux(last_lane, 0, lane + 1))
            with m.If(last_lane):
                m.d.sync += class_.eq(Mux(last_class, 0, class_ + 1))
            with m.If(last_lane & last_class):
                m.d.sync += pass_.eq(pass_.as_value() + 1)

    def _power(self, m: Module, element: data.View) -> Value:
        """Keeps the largest logit of each lane (pass 1); powers of the distances to it."""
        m.submodules.largest = largest = Memory(shape=signed(LOGIT_BITS), depth=self.lanes, init=[])
        m.submodules.exponential = exponential = Exponential(self.table)
        read, write, logit = largest.read_port(domain="comb"), largest.write_port(), self.logits.payload.logit
        m.d.comb += [
            read.addr.eq(element.lane),
            write.addr.eq(element.lane),
            write.data.eq(Mux(element.first_class | (logit > read.data), logit, read.data)),
            write.en.eq(element.pass_ == Pass.LARGEST),
            exponential.distance.eq(read.data - logit),
            exponential.frac.eq(self.loss.frac),
        ]
        return exponential.power

    def _share(
        self, m: Module, element: data.View, arrived: data.View, power: Value, room: Signal, shares: stream.Interface
    ) -> None:
        """Adds up powers (pass 2); keeps one power until it can be divided (pass 3), which is what there is room for."""
        m.submodules.totals = totals = Memory(shape=TOTAL_BITS, depth=self.lanes, init=[])
        read, write, divisor = totals.read_port(domain="comb"), totals.write_port(), totals.read_port(domain="comb")
        kept, kept_power, on_the_way = Signal(arrived.shape()), Signal(POWER_BITS), Signal()
        m.d.comb += [
            read.addr.eq(arrived.lane),
            write.addr.eq(arrived.lane),
            write.data.eq(Mux(arrived.first_class, 0, read.data) + power),
            write.en.eq(arrived.pass_ == Pass.SUM),
            divisor.addr.eq(kept.lane),
            shares.payload.total.eq(divisor.data),
            shares.payload.power.eq(kept_power),
            *(shares.payload[name].eq(kept[name]) for name in ("is_label", "random_element", "last_lane", "last")),
            room.eq(~on_the_way),
        ]
        with m.If(element.pass_ == Pass.ERROR):
            m.d.sync += on_the_way.eq(1)
        with m.Elif(shares.valid & shares.ready):
            m.d.sync += on_the_way.eq(0)
        with m.If(arrived.pass_ == Pass.ERROR):
            m.d.sync += [kept.eq(arrived), kept_power.eq(power), shares.valid.eq(1)]
        with m.Elif(shares.ready):
            m.d.sync += shares.valid.eq(0)
