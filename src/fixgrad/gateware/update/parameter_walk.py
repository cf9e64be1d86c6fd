"""Parameters one by one into the arithmetic: elements out of words, gradients out of the PEs."""

from itertools import pairwise

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.checks import ALL_PES
from fixgrad.gateware.pe.pe import GRADIENT_LATENCY
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.update.shape import (
    COUNT_BITS,
    ELEMENT,
    ELEMENT_BYTES,
    GRADIENT,
    MOMENTUM,
    READ_WORDS,
    STORED,
    TENSORS,
    UpdateShape,
)
from fixgrad.gateware.update.unpacker import Unpacker
from fixgrad.gateware.update.update_unit import PARAMETER, SETTING, UPDATE_LATENCY, UpdateUnit
from fixgrad.machine import Machine
from fixgrad.machine.gradient_port import GRADIENTS_IN_A_ROW

#: Parameters between the taking of their gradients and their results' leaving.
RESULTS = 32


def extended(element: Value, size: Value) -> Value:
    """An element of 2, 3 or 4 bytes, with its sign."""
    wide = Mux(size == 2, element[:16].as_signed(), element[:24].as_signed())
    return Mux(size == ELEMENT_BYTES, element.as_signed(), wide)


class ParameterWalk(wiring.Component):
    """A parameter a cycle, from one UPDATE to the next too, as long as its numbers are here and its result has room.

    Members:
        walks: in, stream: UPDATEs in order. setting: in, see `UpdateUnit`.
        word: in. word_valid: in, a bit for the tensor that it is of. asked: in, array: so many words of each tensor are asked
            for. may: out, a bit for each tensor: there is room for another block.
        take_gradient, gradients: out and in, arrays over the lane's groups; gradient_address: out; as of `Group`.
        gradient_wanted: in, array over the groups: after `GRADIENTS_IN_A_ROW` gradients of the group the next one waits for a cycle.
        updated, updated_valid: out: a result. taken: in: one has left the queue behind.
        busy: out, a parameter goes. blocked: out, one would, had its result room or did the PEs not want
            their port. works: out, an UPDATE is at hand.
    """

    def __init__(self, machine: Machine, shape: UpdateShape) -> None:
        self.machine, self.shape = machine, shape
        pes = machine.pes_per_group
        super().__init__(
            {
                "walks": In(stream.Signature(shape.walk())),
                "setting": In(SETTING),
                "word": In(8 * shape.word_bytes),
                "word_valid": In(TENSORS),
                "asked": In(range(shape.block_words + 1)).array(TENSORS),
                "may": Out(TENSORS),
                "take_gradient": Out(pes).array(shape.sources),
                "gradient_address": Out(PeShape.of(machine).gradient_bits),
                "gradient_wanted": In(1).array(shape.sources),
                "gradients": In(32).array(shape.sources, pes),
                "updated": Out(PARAMETER),
                "updated_valid": Out(1),
                "taken": In(1),
                "busy": Out(1),
                "blocked": Out(1),
                "works": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        now, following = Signal(self.shape.walk()), self.walks.payload
        loads, is_last, room, has_all = Signal(), Signal(), Signal(), Signal()
        rests = self._rests(m, now)
        left, tap, flying = Signal(COUNT_BITS), Signal.like(following.taps), Signal(range(RESULTS + 1))
        m.d.comb += [
            is_last.eq(left == 1),
            self.busy.eq(self.works & has_all & room & ~rests),
            self.blocked.eq(self.works & has_all & (~room | rests)),
            room.eq(flying != RESULTS),
            self.walks.ready.eq(~self.works | (self.busy & is_last)),
            loads.eq(self.walks.valid & self.walks.ready),
        ]
        m.d.sync += flying.eq(flying + self.busy - self.taken)
        ends_kernel = Signal()
        m.d.comb += ends_kernel.eq(tap == now.taps - 1)
        with m.If(loads):
            m.d.sync += [now.eq(following), left.eq(following.count), tap.eq(0)]
            m.d.sync += self.works.eq(following.count != 0)
        with m.Elif(self.busy):
            m.d.sync += [left.eq(left - 1), now.gradient_base.eq(now.gradient_base + 1)]
            m.d.sync += [tap.eq(Mux(ends_kernel, 0, tap + 1)), self.works.eq(~is_last)]

        unpackers = self._unpackers(m, now, loads, is_last, ends_kernel)
        needed = {STORED: 1, MOMENTUM: 1, ELEMENT: self.setting.stochastic, GRADIENT: now.from_memory}
        all_here: Value = Value.cast(1)
        for tensor, is_needed in needed.items():
            all_here = all_here & (unpackers[tensor].valid | ~Value.cast(is_needed)[0])
        m.d.comb += has_all.eq(all_here)
        self._arithmetic(m, now, tap, unpackers)
        return m

    def _rests(self, m: Module, now: Value) -> Value:
        """Whether no gradient is taken in this cycle, so that a step that was held back may go."""
        in_a_row, is_wanted = Signal(range(GRADIENTS_IN_A_ROW + 1)), Array(self.gradient_wanted)[now.source]
        m.d.sync += in_a_row.eq(Mux(self.busy, Mux(in_a_row == GRADIENTS_IN_A_ROW, in_a_row, in_a_row + 1), 0))
        rests: Value = Value.cast(is_wanted) & (in_a_row == GRADIENTS_IN_A_ROW)
        return rests

    def _unpackers(self, m: Module, now: Value, loads: Value, is_last: Value, ends_kernel: Value) -> list[Unpacker]:
        """Of all four tensors; of one that an UPDATE does not read there is no word."""
        unpackers = []
        sizes = (now.stored_bytes, now.momentum_bytes, ELEMENT_BYTES, ELEMENT_BYTES)
        for tensor, size in enumerate(sizes):
            words = READ_WORDS if tensor in (STORED, MOMENTUM) else READ_WORDS // 2
            m.submodules[f"unpacker_{tensor}"] = unpacker = Unpacker(self.shape, words)
            used = {ELEMENT: self.setting.stochastic & (ends_kernel | is_last), GRADIENT: now.from_memory}.get(tensor, Value.cast(1))
            m.d.comb += [
                unpacker.word.eq(self.word),
                unpacker.word_valid.eq(self.word_valid[tensor]),
                unpacker.asked.eq(self.asked[tensor]),
                self.may[tensor].eq(unpacker.may),
                unpacker.begin.eq(loads),
                unpacker.skip.eq(self.walks.payload.skip[tensor]),
                unpacker.size.eq(size),
                unpacker.take.eq(self.busy & used),
                unpacker.last.eq(is_last),
            ]
            unpackers.append(unpacker)
        return unpackers

    def _arithmetic(self, m: Module, now: Value, tap: Value, unpackers: list[Unpacker]) -> None:
        """The other numbers wait for the gradients; then nothing waits any more."""
        m.submodules.unit = unit = UpdateUnit(self.machine)
        stored, momentum, element, gradient = (unpacker.element for unpacker in unpackers)
        pes = Signal(self.machine.pes_per_group)
        m.d.comb += [
            pes.eq(Mux(now.from_memory, 0, Mux(now.pe == ALL_PES, -1, 1 << now.pe))),
            *(take.eq(Mux(self.busy & (now.source == number), pes, 0)) for number, take in enumerate(self.take_gradient)),
            self.gradient_address.eq(now.gradient_base),
            Value.cast(unit.setting).eq(Value.cast(self.setting)),
            self.updated.eq(unit.updated),
            self.updated_valid.eq(unit.updated_valid),
        ]
        inputs = {
            "stored": extended(stored, now.stored_bytes),
            "momentum": extended(momentum, now.momentum_bytes),
            "element": element + tap,
            "memory_gradient": Mux(now.from_memory, gradient, 0),
            "pes": pes,
            "valid": self.busy,
            "source": now.source,
        }
        source = Signal.like(now.source)
        for name, value in inputs.items():
            to = source if name == "source" else getattr(unit, name)
            line = [value, *(Signal(to.shape(), name=f"{name}_{cycle}") for cycle in range(1, GRADIENT_LATENCY + 1))]
            for before, after in pairwise(line):
                m.d.sync += after.eq(before)
            m.d.comb += to.eq(line[-1])
        for pe, to in enumerate(unit.gradients):
            of_groups = [gradients[pe] for gradients in self.gradients]
            m.d.comb += to.eq(Array(of_groups)[source] if len(of_groups) > 1 else of_groups[0])


#: From the taking of a gradient until its result leaves.
WALK_LATENCY = GRADIENT_LATENCY + UPDATE_LATENCY
assert WALK_LATENCY < RESULTS, "a parameter a cycle needs room for all that are on their way"
