"""Dispatch: decoded instructions go, in order, to the queues of their units, and begin there when their waits are met."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import BlockFifo, Fifo
from fixgrad.gateware.control.decode import ERROR_BITS, decoded_layout
from fixgrad.gateware.control.layouts import INDEX_BITS, WAIT_UNITS, issued_layout, waits_layout
from fixgrad.gateware.control.scoreboard import Scoreboard, meets
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.machine.memory_blocks import QUEUE_LUTS_FOR_A_BLOCK
from fixgrad.machine.registers import ErrorCode

#: Instructions that wait in front of a unit.
QUEUE_DEPTH = 16


class UnitQueue(wiring.Component):
    """The queue of a unit.

    Members:
        i: instructions with what they wait for. counts: completed instructions.
        o: the oldest one, once its waits are met.
        head: the oldest one as soon as it is there; for a unit that prepares it. It leaves by `o` all the same.
        head_valid: there is one.
        waiting: there is one whose waits are not met.
    """

    def __init__(self, unit: Unit, machine: Machine | None = None, depth: int = QUEUE_DEPTH) -> None:
        self.unit, self.depth = unit, depth
        self.entry = data.StructLayout({"waits": waits_layout(), "issued": issued_layout(unit, machine)})
        super().__init__(
            {
                "i": In(stream.Signature(self.entry)),
                "counts": In(waits_layout()),
                "o": Out(stream.Signature(issued_layout(unit, machine))),
                "head_valid": Out(1),
                "waiting": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = self._queue(platform)
        m.d.comb += [
            Value.cast(fifo.i.payload).eq(Value.cast(self.i.payload)),
            fifo.i.valid.eq(self.i.valid),
            self.i.ready.eq(fifo.i.ready),
        ]
        # Counts only grow, so what was met stays met, and the comparison has a cycle of its own.
        met, leaves = Signal(), Signal()
        m.d.comb += [
            leaves.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(fifo.o.valid & met),
            self.o.payload.eq(fifo.o.payload.issued),
            fifo.o.ready.eq(leaves),
            self.head_valid.eq(fifo.o.valid),
            self.waiting.eq(fifo.o.valid & ~met),
        ]
        m.d.sync += met.eq(fifo.o.valid & ~leaves & meets(fifo.o.payload.waits, self.counts))
        return m

    def _queue(self, platform: object) -> "BlockFifo | Fifo":
        """An UPDATE is never in a hurry, and there are as many queues as groups: they wait in block RAM, where that is cheap."""
        if self.unit is Unit.UPDATE and getattr(platform, "block_kind", None) not in QUEUE_LUTS_FOR_A_BLOCK:
            return BlockFifo(self.entry, self.depth)
        return Fifo(self.entry, self.depth, patient=True)


class Dispatch(wiring.Component):
    """Queues of all units, counts, and HALT. A reset makes it ready for a program.

    COMPUTE joins the queues of all groups at once, UPDATE that of its group. An instruction that waits for more than stands
    before it is refused: so every wait is met in the end if every unit ends what it begins.

    Members:
        i: decoded instructions; the first one that is illegal is not taken any more.
        load, post: instructions for these units, in order, when their waits are met. compute, update: likewise, an array of
            groups. compute_head_valid: the payload of `compute` may be looked at before it is valid.
        *_done: see `Scoreboard`.
        completed: by the slowest group.
        halted: HALT was reached, its waits are met, and everything issued has completed.
        error: the instruction at hand is illegal (`ErrorCode`, 0: it is not); error_index: its place in the program.
        *_waiting: of each queue of a unit, whether its oldest instruction waits for others. *_empty: whether it holds none.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        groups = machine.groups
        each = {Unit.LOAD: 1, Unit.COMPUTE: groups, Unit.POST: 1, Unit.UPDATE: groups}
        members = {
            "i": In(stream.Signature(decoded_layout(machine))),
            "compute_head_valid": Out(groups),
            "completed": Out(waits_layout()),
            "halted": Out(1),
            "error": Out(ERROR_BITS),
            "error_index": Out(INDEX_BITS),
        }
        for unit, count in each.items():
            issued = Out(stream.Signature(issued_layout(unit, machine)))
            members[str(unit)] = issued.array(count) if unit in (Unit.COMPUTE, Unit.UPDATE) else issued
            members |= {f"{unit}_done": In(count), f"{unit}_waiting": Out(count), f"{unit}_empty": Out(count)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scoreboard = scoreboard = Scoreboard(self.machine)
        instruction = self.i.payload
        legal, joins = Signal(), Signal()
        rooms = {}
        m.d.comb += [
            self.completed.eq(scoreboard.completed),
            self.error_index.eq(instruction.index),
        ]
        for unit in WAIT_UNITS:
            m.d.comb += getattr(scoreboard, f"{unit}_done").eq(getattr(self, f"{unit}_done"))
            rooms[unit] = self._queues(m, unit, scoreboard, joins)
        with m.If(self.i.valid):
            with m.If(instruction.error != 0):
                m.d.comb += self.error.eq(instruction.error)
            with m.Elif(~meets(instruction.waits, scoreboard.issued)):
                m.d.comb += self.error.eq(ErrorCode.UNREACHABLE_WAIT)
        m.d.comb += legal.eq(self.i.valid & (self.error == 0))
        room = Cat(*(instruction.units[str(unit)] & rooms[unit] for unit in WAIT_UNITS)).any()
        m.d.comb += [
            joins.eq(legal & ~instruction.halt & room),
            self.halted.eq(legal & instruction.halt & meets(instruction.waits, scoreboard.completed) & scoreboard.all_done),
            self.i.ready.eq(joins),
        ]
        return m

    def _queues(self, m: Module, unit: Unit, scoreboard: Scoreboard, joins: Signal) -> Value:
        """The queues of a unit; returns whether the instruction at hand, if it is the unit's, finds room."""
        instruction = self.i.payload
        is_mine = instruction.units[str(unit)]
        out = getattr(self, str(unit))
        outs = list(out) if unit in (Unit.COMPUTE, Unit.UPDATE) else [out]
        ready, chosen, waiting, empty, heads = [], [], [], [], []
        for index, each in enumerate(outs):
            m.submodules[f"{unit}_{index}"] = queue = UnitQueue(unit, self.machine)
            takes = (instruction.group == index) if unit is Unit.UPDATE else Value.cast(1)
            m.d.comb += [
                queue.i.valid.eq(joins & is_mine & takes),
                queue.i.payload.waits.eq(instruction.waits),
                queue.i.payload.issued.index.eq(instruction.index),
                queue.i.payload.issued.opcode.eq(instruction.opcode),
                queue.i.payload.issued.body.eq(instruction.body),
                queue.counts.eq(scoreboard.completed),
                each.valid.eq(queue.o.valid),
                each.payload.eq(queue.o.payload),
                queue.o.ready.eq(each.ready),
            ]
            ready.append(queue.i.ready | ~takes)
            chosen.append(joins & is_mine & takes)
            waiting.append(queue.waiting)
            heads.append(queue.head_valid)
            empty.append(~queue.head_valid)
        issued = getattr(scoreboard, f"{unit}_issued")
        m.d.comb += [
            issued.eq(Cat(*chosen) if len(issued) > 1 else chosen[0]),
            getattr(self, f"{unit}_waiting").eq(Cat(*waiting)),
            getattr(self, f"{unit}_empty").eq(Cat(*empty)),
        ]
        if unit is Unit.COMPUTE:
            m.d.comb += self.compute_head_valid.eq(Cat(*heads))
        return Cat(*ready).all()
