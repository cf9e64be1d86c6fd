"""A controller for a single-data-rate SDRAM of 16 bits behind AXI4 ports: small, one burst at a time."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from fixgrad.gateware.axi.bus import Axi4Signature, Response
from fixgrad.gateware.axi.streams import Fifo, RoundRobin
from fixgrad.gateware.synthesis.board.sdram_timing import CAS_LATENCY, SdramCycles, SdramPart

#: Bits of a column.
_WORD = 16
#: Beats that were read and that nobody has taken yet.
_READ_BEATS = 8
#: Refreshes that may be late; the parts allow 8.
_MOST_DEBT = 7
#: From the cycle that decides on a READ until its data is in the register of the pins. The chip's clock is inverted, so it sees
#: a command half a cycle after the pins change, and its data is there half a cycle before the second edge after.
_READ_CYCLES = CAS_LATENCY + 1
#: Address bit that makes a PRECHARGE one of all banks.
_ALL_BANKS = 1 << 10


class Command(enum.Enum, shape=3):  # type: ignore[call-arg]
    """RAS#, CAS#, WE# from the highest bit on (JEDEC 21-C, 3.11.5.1)."""

    MODE = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVATE = 0b011
    WRITE = 0b100
    READ = 0b101
    NOP = 0b111


def pins(part: SdramPart) -> wiring.Signature:
    """The chip's pins from the controller's side, all from registers, the chip's clock apart."""
    members = {
        "command": Out(Command, init=Command.NOP),
        "ba": Out(part.bank_bits),
        "a": Out(part.row_bits),
        "dqm": Out(2, init=3),
        "dq_o": Out(_WORD),
        "dq_oe": Out(1),
        "dq_i": In(_WORD),
    }
    return wiring.Signature(members)


class Sdram(wiring.Component):
    """Bursts of several masters, round robin, one at a time; a row is open while a burst is in it.

    An address is row, bank, column, byte from its highest bit on. Bursts count up (INCR) and move whole beats. One that begins
    behind the chip's end is answered with DECERR and writes nothing.

    Args:
        axi: signature of a master. masters: how many. clock_mhz: of this clock, 100 at most.

    Members:
        ports: from the masters. pins: to the chip, whose clock must be this clock inverted; `dq_i` from a register.
    """

    def __init__(self, axi: Axi4Signature, masters: int, clock_mhz: float, part: SdramPart | None = None) -> None:
        self.axi, self.masters, self.part = axi, masters, part or SdramPart()
        self.cycles = SdramCycles.of(self.part, clock_mhz)
        self.beat_words = axi.data_bytes * 8 // _WORD
        if not 4 <= self.beat_words <= 32:
            raise ValueError(f"data_bytes is {axi.data_bytes}: choose 8 to 64")
        super().__init__({"ports": In(axi).array(masters), "pins": Out(pins(self.part))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles, part, pins = self.cycles, self.part, self.pins
        address_layout = data.StructLayout(
            {"byte": 1, "column": part.column_bits, "bank": part.bank_bits, "row": part.row_bits, "above": self._above_bits}
        )
        address, beats, identifier = Signal(address_layout), Signal(9), Signal(self.axi.id_bits)
        is_write, is_busy, answer = Signal(), Signal(), Signal()
        delay = Signal(range(max(cycles.power_up, cycles.rfc) + 1), init=cycles.power_up)
        step, place = Signal(2), Signal(range(self.beat_words))
        m.submodules.turns = turns = RoundRobin(2 * self.masters)
        master = Signal(range(max(self.masters, 2)))
        debt, pay = self._refresh_debt(m)
        room, arriving, is_empty = self._reads(m, place, beats, identifier, master, address.above.any())
        accept, write = Signal(), self._chosen_write(m, master, is_write)
        self._requests(m, turns, accept)
        self._answers(m, answer, master, identifier, address.above.any())

        def issue(command: int, wait: int | Value, *, a: int | Value = 0) -> None:
            m.d.sync += [pins.command.eq(command), pins.a.eq(a), pins.ba.eq(address.bank), delay.eq(wait)]

        m.d.sync += [pins.command.eq(Command.NOP), pins.dq_oe.eq(0), pins.dqm.eq(0)]
        with m.If(delay != 0):
            m.d.sync += delay.eq(delay - 1)
        with m.Else(), m.FSM():
            with m.State("POWER_UP"):
                m.d.sync += step.eq(step + 1)
                with m.Switch(step):
                    with m.Case(0):
                        issue(Command.PRECHARGE, cycles.rp - 1, a=_ALL_BANKS)
                    with m.Case(1, 2):
                        issue(Command.REFRESH, cycles.rfc - 1)
                    with m.Case(3):  # bursts of one, in order; writes too
                        issue(Command.MODE, 1, a=CAS_LATENCY << 4 | 1 << 9)
                        m.next = "IDLE"
            with m.State("IDLE"):  # all banks are closed
                with m.If(debt != 0):
                    m.d.comb += pay.eq(1)
                    issue(Command.REFRESH, cycles.rfc - 1)
                with m.Elif(is_busy):
                    issue(Command.ACTIVATE, cycles.rcd - 1, a=address.row)
                    m.next = "COLUMNS"
                with m.Elif(turns.any & ~answer & is_empty):
                    m.d.comb += accept.eq(1)
                    m.d.sync += [is_busy.eq(1), place.eq(0)]
                    for index, request in enumerate(self._channels()):
                        with m.If(turns.choice == index):
                            m.d.sync += [
                                Value.cast(address).eq(request.payload.addr),
                                address.byte.eq(0),
                                address.column[: exact_log2(self.beat_words)].eq(0),
                                beats.eq(request.payload.len + 1),
                                identifier.eq(request.payload.id),
                                master.eq(index // 2),
                                is_write.eq(index % 2),
                            ]
            with m.State("COLUMNS"):
                moves, ends_beat = Signal(), Signal()
                m.d.comb += [
                    moves.eq(Mux(is_write, write.valid, room)),
                    ends_beat.eq(moves & (place == self.beat_words - 1)),
                    write.ready.eq(is_write & ends_beat),
                    arriving.eq(moves & ~is_write),
                ]
                with m.If(moves):
                    issue(Command.READ, 0, a=address.column)
                    m.d.sync += [place.eq(place + 1), address.column.eq(address.column + 1)]
                    with m.If(is_write):
                        m.d.sync += [
                            pins.command.eq(Command.WRITE),
                            pins.dq_oe.eq(1),
                            pins.dq_o.eq(write.payload.data.word_select(place, _WORD)),
                            pins.dqm.eq(Mux(address.above.any(), 3, ~write.payload.strb.word_select(place, 2))),
                        ]
                with m.If(ends_beat):
                    m.d.sync += [place.eq(0), beats.eq(beats - 1)]
                    with m.If((beats == 1) | address.column.all()):
                        # Data that was asked for comes if the row stays open for CAS latency less one.
                        m.d.sync += delay.eq(max(cycles.wr, CAS_LATENCY - 1, cycles.ras - cycles.rcd - self.beat_words))
                        m.next = "CLOSE"
            with m.State("CLOSE"):
                issue(Command.PRECHARGE, cycles.rp - 1, a=_ALL_BANKS)
                with m.If(beats == 0):
                    m.d.sync += [is_busy.eq(0), answer.eq(is_write)]
                with m.Else():  # the next row; the column has wrapped around
                    after = Cat(address.bank, address.row, address.above)
                    m.d.sync += after.eq(after + 1)
                m.next = "IDLE"
        return m

    @property
    def _above_bits(self) -> int:
        """Address bits that must be 0."""
        return max(1, self.axi.address_bits - exact_log2(self.part.capacity))

    def _channels(self) -> list[wiring.PureInterface]:
        """Requests of all masters: reads are even, writes are odd."""
        return [channel for port in self.ports for channel in (port.ar, port.aw)]

    def _refresh_debt(self, m: Module) -> tuple[Signal, Signal]:
        """How many refreshes are due, and a pulse that one is done."""
        timer, debt, pay = Signal(range(self.cycles.refresh)), Signal(range(_MOST_DEBT + 1)), Signal()
        is_due = Signal()
        m.d.comb += is_due.eq(timer == 0)
        m.d.sync += [
            timer.eq(Mux(is_due, self.cycles.refresh - 1, timer - 1)),
            debt.eq(debt + (is_due & (debt != _MOST_DEBT)) - pay),
        ]
        return debt, pay

    def _requests(self, m: Module, turns: RoundRobin, accept: Signal) -> None:
        channels = self._channels()
        m.d.comb += [turns.requests.eq(Cat(*(channel.valid for channel in channels))), turns.take.eq(accept)]
        for index, channel in enumerate(channels):
            m.d.comb += channel.ready.eq(accept & (turns.choice == index))

    def _chosen_write(self, m: Module, master: Signal, is_write: Signal) -> wiring.PureInterface:
        """The data channel of the master whose burst it is."""
        write = self.axi.members["w"].signature.create(path=("write",))
        for index, port in enumerate(self.ports):
            with m.If(master == index):
                m.d.comb += [
                    write.valid.eq(port.w.valid),
                    Value.cast(write.payload).eq(Value.cast(port.w.payload)),
                    port.w.ready.eq(write.ready),
                ]
        return write

    def _answers(self, m: Module, answer: Signal, master: Signal, identifier: Signal, is_outside: Value) -> None:
        """The response to a write."""
        for index, port in enumerate(self.ports):
            m.d.comb += [
                port.b.valid.eq(answer & (master == index)),
                port.b.payload.id.eq(identifier),
                port.b.payload.resp.eq(Mux(is_outside, Response.DECERR, Response.OKAY)),
            ]
            with m.If(port.b.valid & port.b.ready):
                m.d.sync += answer.eq(0)

    def _reads(
        self, m: Module, place: Signal, beats: Signal, identifier: Signal, master: Signal, is_outside: Value
    ) -> tuple[Value, Signal, Value]:
        """Collects what the chip sends.

        Returns:
            Whether another column may be asked for; a signal that one is asked for in this cycle; whether nothing is under way.
        """
        layout = data.StructLayout({"data": 8 * self.axi.data_bytes, "last": 1})
        m.submodules.beats = queue = Fifo(layout, _READ_BEATS)
        arriving, owed = Signal(), Signal(range(_READ_BEATS + 1))
        # What is known of a column when it is asked for: that it is one, that it ends a beat, that it ends the burst.
        ends = place == self.beat_words - 1
        marks = [Signal(3, name=f"marks_{cycle}") for cycle in range(_READ_CYCLES)]
        asked = Cat(arriving, arriving & ends, arriving & ends & (beats == 1))
        m.d.sync += [after.eq(before) for after, before in zip(marks, [asked, *marks], strict=False)]
        word = Signal(8 * self.axi.data_bytes)
        whole = Cat(word[_WORD:], self.pins.dq_i)
        with m.If(marks[-1][0]):
            m.d.sync += word.eq(whole)
        m.d.comb += [queue.i.valid.eq(marks[-1][1]), queue.i.payload.data.eq(whole), queue.i.payload.last.eq(marks[-1][2])]
        taken = Signal()
        m.d.sync += owed.eq(owed + (arriving & (place == 0)) - taken)
        for index, port in enumerate(self.ports):
            m.d.comb += [
                port.r.valid.eq(queue.o.valid & (master == index)),
                port.r.payload.data.eq(queue.o.payload.data),
                port.r.payload.last.eq(queue.o.payload.last),
                port.r.payload.id.eq(identifier),
                port.r.payload.resp.eq(Mux(is_outside, Response.DECERR, Response.OKAY)),
            ]
            with m.If(port.r.valid & port.r.ready):
                m.d.comb += [queue.o.ready.eq(1), taken.eq(1)]
        return (place != 0) | (owed != _READ_BEATS), arriving, owed == 0
