"""Takes a lane's UPDATEs: reads the entry of the step table, asks for what is to be read, passes the rest on."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.layouts import body, issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.update.shape import COUNT_BITS, ELEMENT, GRADIENT, LENGTH_BITS, MOMENTUM, STORED, TENSORS, UpdateShape
from fixgrad.gateware.update.update_unit import SETTING
from fixgrad.machine.instructions import Unit


def lane_transfer(shape: UpdateShape) -> data.StructLayout:
    """A transfer of a lane: `tensor`, and the rest as in `UpdateShape.transfer`."""
    members = {name: member.shape for name, member in shape.transfer() if name != "stream"}
    return data.StructLayout({"tensor": range(TENSORS), **members})


def ends_layout(shape: UpdateShape) -> data.StructLayout:
    """What must come before an UPDATE is complete: see `Opener`."""
    return data.StructLayout({"source": range(max(shape.sources, 2)), "needed": TENSORS + 1})


def bytes_of(count: Value, size: Value) -> Value:
    """Bytes of so many elements of 1 to 4 bytes."""
    return (Mux(size[0], count, 0) + Mux(size[1], count << 1, 0) + Mux(size[2], count << 2, 0))[:LENGTH_BITS]


class Opener(wiring.Component):
    """One UPDATE after the other, ahead of those that are worked on as far as queues reach.

    The entry of the step table is kept while an UPDATE that uses it is under way; another one waits until none is.

    Members:
        instructions: in, stream; taken when all its reads have been asked for. source: in, with it: whose it is.
        table: out, see `TableRead`. setting: out, the entry, steady while an UPDATE is under way.
        idle: in: no UPDATE that was taken is under way.
        transfers: out, stream: what to read.
        walks, packings, writings, ends: out, streams: for the stages behind. ends: what must come before an UPDATE is complete,
            a bit for the transfers of each tensor, and one for the report; and whose it is.
        works: out: an instruction is at hand.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.UPDATE))),
                "source": In(range(max(shape.sources, 2))),
                "table": Out(TableRead()),
                "setting": Out(SETTING),
                "idle": In(1),
                "transfers": Out(stream.Signature(lane_transfer(shape))),
                "walks": Out(stream.Signature(shape.walk())),
                "packings": Out(stream.Signature(shape.packing())),
                "writings": Out(stream.Signature(shape.writing())),
                "ends": Out(stream.Signature(ends_layout(shape))),
                "works": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        update = body(self.instructions.payload, "UPDATE")
        known = Signal.like(update.param)
        turn, tensor, is_needed, all_counted = Signal(range(TENSORS)), Signal(range(TENSORS)), Signal(), Signal()
        elements = self._count_elements(m, update, all_counted)
        ends = [self.walks, self.packings, self.writings, self.ends]
        m.d.comb += [
            # The random elements first: few, but no parameter goes without, and so they do not queue behind all the others.
            tensor.eq(Array([ELEMENT, STORED, MOMENTUM, GRADIENT])[turn]),
            self.works.eq(self.instructions.valid),
            self.table.index.payload.eq(update.param),
            is_needed.eq(Array([1, 1, self.setting.stochastic, update.from_memory])[tensor] & (update.count != 0)),
        ]
        with m.FSM():
            with m.State("wait"):
                m.d.sync += turn.eq(0)
                with m.If(self.instructions.valid & Cat(each.ready for each in ends).all()):
                    with m.If(self.idle):
                        m.next = "ask"
                    with m.Elif(known == update.param):
                        m.next = "open"
            with m.State("ask"):
                m.d.comb += self.table.index.valid.eq(1)
                with m.If(self.table.index.ready):
                    m.next = "entry"
            with m.State("entry"), m.If(self.table.entry.valid):
                m.d.sync += [self.setting[name].eq(self.table.entry.payload[name]) for name, _ in SETTING]
                m.d.sync += known.eq(update.param)
                m.next = "open"
            with m.State("open"):
                m.d.comb += self.transfers.valid.eq(is_needed & ((tensor != ELEMENT) | all_counted))
                with m.If(~is_needed | (self.transfers.valid & self.transfers.ready)):
                    m.d.sync += turn.eq(turn + 1)
                    with m.If(turn == TENSORS - 1):
                        m.d.comb += self.instructions.ready.eq(1)
                        m.next = "wait"
        transfer = self.transfers.payload
        count = Mux(tensor == ELEMENT, elements, update.count)
        size = Array([update.stored_bytes, update.momentum_bytes, 4, 4])[tensor]
        m.d.comb += [
            transfer.tensor.eq(tensor),
            transfer.address.eq(Array([update.stored, update.momentum, update.element, update.gradient_source])[tensor]),
            transfer.length.eq(bytes_of(count, Value.cast(size))),
            transfer.index.eq(self.instructions.payload.index),
        ]
        self._pass_on(m, update)
        return m

    def _count_elements(self, m: Module, update: data.View, all_counted: Signal) -> Signal:
        """Random elements of the parameters at hand, one for every `taps` of them: one counted in a cycle, so as fast as
        parameters are updated at least."""
        elements, left, counting = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal()
        m.d.comb += all_counted.eq(counting & (left == 0))
        with m.If(~self.instructions.valid | self.instructions.ready):
            m.d.sync += counting.eq(0)
        with m.Elif(~counting):
            # Where every parameter has an element there is nothing to count.
            is_each = update.taps == 1
            m.d.sync += [counting.eq(1), left.eq(Mux(is_each, 0, update.count)), elements.eq(Mux(is_each, update.count, 0))]
        with m.Elif(left != 0):
            m.d.sync += [left.eq(Mux(left <= update.taps, 0, left - update.taps)), elements.eq(elements + 1)]
        return elements

    def _pass_on(self, m: Module, update: data.View) -> None:
        places = {
            STORED: update.stored,
            MOMENTUM: update.momentum,
            ELEMENT: update.element,
            GRADIENT: update.gradient_source,
        }
        shape = self.shape
        for name in ("walks", "packings", "writings"):
            out = getattr(self, name)
            m.d.comb += out.valid.eq(self.instructions.ready)
            names = {name for name, _ in out.payload.shape()}
            m.d.comb += [out.payload[name].eq(update[name]) for name in names - {"skip", "places", "index", "source"}]
        m.d.comb += [
            self.writings.payload.index.eq(self.instructions.payload.index),
            self.walks.payload.source.eq(self.source),
            self.ends.payload.source.eq(self.source),
            *(self.walks.payload.skip[t].eq(place[: (shape.word_bytes - 1).bit_length()]) for t, place in places.items()),
        ]
        places[ELEMENT] = update.operand
        m.d.comb += [self.packings.payload.places[t].eq(place[: shape.block_bits]) for t, place in places.items()]
        needed = Cat(1, 1, update.operands, update.from_memory, 1)
        m.d.comb += [self.ends.valid.eq(self.instructions.ready), self.ends.payload.needed.eq(Mux(update.count != 0, needed, 0))]


class WriteOpener(wiring.Component):
    """Asks for the writes of one UPDATE after the other.

    Members:
        writings: in, stream. transfers: out, stream: what to write.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "writings": In(stream.Signature(shape.writing())),
                "transfers": Out(stream.Signature(lane_transfer(shape))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        update, transfer, tensor = self.writings.payload, self.transfers.payload, Signal(range(TENSORS))
        is_needed, goes_on = Signal(), Signal()
        size = Array([update.stored_bytes, update.momentum_bytes, 1, 4])[tensor]
        m.d.comb += [
            is_needed.eq(Array([1, 1, update.operands, update.from_memory])[tensor] & (update.count != 0)),
            self.transfers.valid.eq(self.writings.valid & is_needed),
            goes_on.eq(self.writings.valid & (~is_needed | self.transfers.ready)),
            self.writings.ready.eq(goes_on & (tensor == TENSORS - 1)),
            transfer.tensor.eq(tensor),
            transfer.address.eq(Array([update.stored, update.momentum, update.operand, update.gradient_source])[tensor]),
            transfer.length.eq(bytes_of(update.count, Value.cast(size))),
            transfer.index.eq(update.index),
        ]
        with m.If(goes_on):
            m.d.sync += tensor.eq(tensor + 1)
        return m


