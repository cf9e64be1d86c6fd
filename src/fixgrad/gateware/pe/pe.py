"""A processing element: walk, addresses, lanes and memories, put together.

                                 cycle 0    1         2         3          4          5           6         7       8
    begin .. walk .. addresses | issue
    FF, NG                     | read       operands  read      products,  store                                    done
                               | inputs,              accumu-   accumu-
                               | weights              lators    late
    WG                         | read       operands            products,  registers  adder tree, read      write   done
                               | inputs,                        accumu-               read        gradient
                               | errors                         late                  gradient    + sum

A step is held back in front of cycle 0 alone; behind it nothing ever waits. It is held back where

* it reads an accumulator that the step before the last stores (a hazard);
* POST reads an accumulator, or UPDATE a gradient, in the cycle in which it would read one itself (a drain).
"""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.pe.addresses import ADDRESS_CYCLES, Addresses
from fixgrad.gateware.pe.gradients import GradientMemory
from fixgrad.gateware.pe.issue import GRADIENT_CYCLE, READ_CYCLE, STORE_CYCLE, Issue
from fixgrad.gateware.pe.kernel_queue import KernelQueue
from fixgrad.gateware.pe.lane import Lane
from fixgrad.gateware.pe.lane_sum import LaneSum
from fixgrad.gateware.pe.shape import Mode, PeShape
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.pe.walker import WALK_CYCLES, Walker
from fixgrad.numbers import ACCUMULATOR_BITS

#: Cycles from `begin` until the first step reads its operands.
START_CYCLES = WALK_CYCLES + ADDRESS_CYCLES
#: Cycles from the operand read of a COMPUTE's last step until `busy` falls: all is written. The same in every mode.
COMPUTE_LATENCY = 8
#: Cycles from `drain` until `drained`, and from `take_gradient` until `gradient`.
DRAIN_LATENCY, GRADIENT_LATENCY = READ_CYCLE + 1, GRADIENT_CYCLE + 1
_MULTIPLY_CYCLE = STORE_CYCLE - 1


class Pe(wiring.Component):
    """One PE.

    Members, load side:
        input_write: in, {enable, address, data}: a word of the input buffer, one byte a lane.
        kernels: in, stream of words of the kernel queue.
        errors: in, stream of {address, data}: errors for the lane memories (WG). As accumulators their words are then 0.
        plan, plan_valid: in, words of the next COMPUTE's plan, while the one before may be running.
    Members, control:
        command: in, with `begin`. begin: in, start; only while not busy.
        busy: out. overflow: out, a sum left 32 bits since `begin`.
    Members, drain side:
        drain, drain_address: in, read a word of all lane memories; it is at `drained` (out, 32 bits a lane) `DRAIN_LATENCY`
            cycles later. One a cycle; the PE makes way.
        take_gradient, gradient_address: in, likewise a gradient, at `gradient` (out) `GRADIENT_LATENCY` cycles later.
        gradient_wanted: out, see `Issue`.
    Members, for counters, each high in the cycles that it counts:
        stepping: out, a multiply-accumulate starts. held_by_hazard, held_by_drain: out, a step is held back.
        waiting: out, the queue has no kernel and no end mark.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "input_write": In(shape.input_write()),
                "kernels": In(stream.Signature(shape.kernel())),
                "errors": In(stream.Signature(shape.error())),
                "plan": In(shape.plan_word()),
                "plan_valid": In(1),
                "command": In(shape.command()),
                "begin": In(1),
                "busy": Out(1),
                "overflow": Out(1),
                "drain": In(1),
                "drain_address": In(shape.lane_bits),
                "drained": Out(shape.lanes * ACCUMULATOR_BITS),
                "take_gradient": In(1),
                "gradient_address": In(shape.gradient_bits),
                "gradient": Out(ACCUMULATOR_BITS),
                "gradient_wanted": Out(1),
                "stepping": Out(1),
                "held_by_hazard": Out(1),
                "held_by_drain": Out(1),
                "waiting": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        command, kept = Signal(shape.command()), Signal(shape.command())
        m.d.sync += kept.eq(command)
        m.d.comb += Value.cast(command).eq(Mux(self.begin, Value.cast(self.command), Value.cast(kept)))

        m.submodules.queue = queue = KernelQueue(shape)
        m.submodules.walker = walker = Walker(shape)
        m.submodules.addresses = addresses = Addresses(shape)
        m.submodules.issue = issue = Issue(shape)
        wiring.connect(m, wiring.flipped(self.kernels), queue.entries)
        wiring.connect(m, queue.head, walker.kernels)
        wiring.connect(m, walker.steps, addresses.steps)
        wiring.connect(m, addresses.accesses, issue.accesses)
        for block in (walker, addresses, issue):
            m.d.comb += Value.cast(block.command).eq(Value.cast(command))
        m.d.comb += [
            Value.cast(walker.plan).eq(Value.cast(self.plan)),
            walker.plan_valid.eq(self.plan_valid),
            walker.begin.eq(self.begin),
            issue.begin.eq(self.begin),
            issue.drain.eq(self.drain),
            issue.drain_address.eq(self.drain_address),
            issue.take_gradient.eq(self.take_gradient),
            issue.gradient_address.eq(self.gradient_address),
            self.stepping.eq(issue.slot.valid),
            self.held_by_hazard.eq(issue.held_by_hazard),
            self.held_by_drain.eq(issue.held_by_drain),
            self.gradient_wanted.eq(issue.gradient_wanted),
            self.waiting.eq(walker.waiting),
        ]
        slots = [issue.slot, *(Signal.like(issue.slot, name=f"slot_{cycle}") for cycle in range(1, COMPUTE_LATENCY))]
        for before, after in pairwise(slots):
            m.d.sync += after.eq(before)

        access, wg = addresses.accesses.payload, Signal()
        m.d.comb += wg.eq(command.mode == Mode.WG)
        m.d.comb += queue.read_address.eq(access.weights)
        lanes = self._lanes(m, platform, issue, slots, wg)
        self._operands(m, lanes, access.input, queue.weights, slots[1], wg)
        wrapped = self._gradients(m, lanes, issue, slots)
        self._life(m, queue, walker, addresses, slots, wrapped | (slots[STORE_CYCLE].store & _any(lanes)))
        return m

    def _lanes(self, m: Module, platform: object, issue: Issue, slots: list[data.View], wg: Signal) -> list[Lane]:
        """The lanes with their memories, and who writes to these: a step, else LOAD."""
        lanes = [Lane(self.shape) for _ in range(self.shape.lanes)]
        store = slots[STORE_CYCLE]
        m.d.comb += [
            self.errors.ready.eq(~store.store & ~issue.asking),
            issue.error_address.eq(self.errors.payload.address),
            issue.error_written.eq(self.errors.valid & self.errors.ready),
            self.drained.eq(Cat(lane.read_data for lane in lanes)),
        ]
        for number, lane in enumerate(lanes):
            m.submodules[f"lane_{number}"] = shared(lane, platform)
            m.d.comb += [
                lane.use_error.eq(wg),
                lane.read_address.eq(issue.lane_read.address),
                lane.read_zero.eq(issue.lane_read.zero),
                lane.accumulate.eq(slots[_MULTIPLY_CYCLE].valid & (slots[_MULTIPLY_CYCLE].inside | ~wg)),
                lane.first.eq(slots[_MULTIPLY_CYCLE].first),
                lane.write_address.eq(Mux(store.store, store.lane, self.errors.payload.address)),
                lane.store.eq(store.store),
                lane.store_error.eq(issue.error_written),
                lane.error.eq(self.errors.payload.data.word_select(number, 8)),
            ]
        return lanes

    def _operands(
        self, m: Module, lanes: list[Lane], address: Value, weights: Value, slot: data.View, wg: Signal
    ) -> None:
        """The input buffer, and the weight of the tap for all lanes: 0 in the zero padding."""
        m.submodules.inputs = memory = Memory(shape=8 * self.shape.lanes, depth=self.shape.input_words, init=[])
        write, read = memory.write_port(), memory.read_port()
        weight = Signal(8)
        m.d.comb += [
            write.addr.eq(self.input_write.address),
            write.data.eq(self.input_write.data),
            write.en.eq(self.input_write.enable),
            read.addr.eq(address),
            read.en.eq(1),
            weight.eq(Mux(slot.inside, weights.word_select(slot.place, 8), 0)),
        ]
        for number, lane in enumerate(lanes):
            m.d.comb += [lane.x.eq(read.data.word_select(number, 8)), lane.weight.eq(weight)]

    def _gradients(self, m: Module, lanes: list[Lane], issue: Issue, slots: list[data.View]) -> Value:
        """Adder tree and gradient memory (WG); returns whether a gradient left 32 bits."""
        m.submodules.lane_sum = lane_sum = LaneSum(self.shape)
        m.submodules.gradients = gradients = GradientMemory(self.shape)
        for number, lane in enumerate(lanes):
            m.d.comb += lane_sum.values[number].eq(lane.accumulator[: self.shape.sum_bits])
        slot = slots[STORE_CYCLE + LaneSum.LATENCY]
        m.d.comb += [
            gradients.read_address.eq(issue.gradient_read.address),
            gradients.read_zero.eq(issue.gradient_read.zero),
            gradients.total.eq(lane_sum.total),
            gradients.begin.eq(self.begin),
            gradients.add.eq(slot.add),
            gradients.write_address.eq(slot.gradient),
            self.gradient.eq(gradients.read_data),
        ]
        return gradients.overflow

    def _life(
        self, m: Module, queue: KernelQueue, walker: Walker, addresses: Addresses, slots: list[data.View], wrapped: Value
    ) -> None:
        """From `begin` to the last write; words of the queue that nobody will read again."""
        done, access = Signal(), addresses.accesses.payload
        on_the_way = Cat(slot.valid for slot in slots[:-1]).any() | addresses.busy
        m.d.comb += done.eq(self.busy & walker.ended & ~on_the_way)
        with m.If(self.begin):
            m.d.sync += [self.busy.eq(1), self.overflow.eq(0)]
        with m.Else():
            m.d.sync += self.overflow.eq(self.overflow | wrapped)
            with m.If(done):
                m.d.sync += self.busy.eq(0)
        with m.If(slots[0].valid):
            m.d.comb += queue.release.eq(access.words)
        with m.Elif(done):
            m.d.comb += queue.release.eq(1)  # the end mark
        with m.Else():
            m.d.comb += queue.release.eq(walker.skipped_words)


def _any(lanes: list[Lane]) -> Value:
    return Cat(lane.overflow for lane in lanes).any()

