"""Turns instructions into transfers to ask for and jobs for those who put the data away; runs ahead of the data."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.layouts import body, body_layout, issued_layout
from fixgrad.gateware.load.sizes import Kind, LoadSizes, box_layout, job_layout, rectangle_layout, transfer_layout
from fixgrad.machine import Machine
from fixgrad.machine.instructions import BY_NAME, STEP_ENTRY_BYTES, Unit


class State(enum.Enum, shape=3):  # type: ignore[call-arg]
    """What is done with the instruction at hand.

    BEGIN: look at it. BOX: the rectangle around those of the PEs, a PE a cycle. MULTIPLY: a bit a cycle. JOB: put the job in
    its queue; the address of the first row is known. ROWS: a row a cycle. WEIGHTS: the second transfer of LOAD_KERNELS.
    """

    BEGIN = 0
    BOX = 1
    MULTIPLY = 2
    JOB = 3
    ROWS = 4
    WEIGHTS = 5


class Commands(wiring.Component):
    """One instruction after the other. Addresses wrap at the end of the address space.

    Members:
        instructions: see `FrontEnd`; each is taken when all its transfers and its job are out.
        rows: what to read (`sizes.transfer_layout`), in the order in which the jobs take it.
        jobs: what to do with it (`sizes.job_layout`), one for each instruction.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.sizes = machine, LoadSizes.of(machine)
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.LOAD))),
                "rows": Out(stream.Signature(transfer_layout())),
                "jobs": Out(stream.Signature(job_layout(self.sizes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        issued = self.instructions.payload
        self._state = Signal(State)
        self._is = {name: Signal(name=f"is_{name}") for name in ("LOAD_PARAMS", "LOAD_INPUT", "LOAD_ERROR", "LOAD_KERNELS")}
        m.d.comb += [signal.eq(issued.opcode == BY_NAME[name].opcode) for name, signal in self._is.items()]
        self._box, self._is_empty, self._pe = Signal(box_layout()), Signal(), Signal(range(self.sizes.pes + 1))
        # One register multiplies the first row by its words, and the kernels by their weights.
        self._product, self._multiplicand, self._multiplier = Signal(22), Signal(22), Signal(10)
        self._row_address, self._channel_address = Signal(40), Signal(40)
        self._rows_left, self._channels_left = Signal(10), Signal(16)
        m.d.comb += self.rows.payload.tag.index.eq(issued.index)
        with m.Switch(self._state):
            with m.Case(State.BEGIN), m.If(self.instructions.valid):
                self._begin(m)
            with m.Case(State.BOX):
                self._find_box(m)
            with m.Case(State.MULTIPLY):
                self._multiply(m)
            with m.Case(State.JOB):
                self._give_job(m)
            with m.Case(State.ROWS):
                self._ask_rows(m)
            with m.Case(State.WEIGHTS):
                self._ask_weights(m)
        self._jobs(m)
        return m

    def _done(self, m: Module) -> None:
        m.d.comb += self.instructions.ready.eq(1)
        m.d.sync += self._state.eq(State.BEGIN)

    def _begin(self, m: Module) -> None:
        """Coordinates and step-table entries are asked for at once; nothing is asked of an instruction without entries."""
        issued, row = self.instructions.payload, self.rows.payload
        params, kernels = body(issued, "LOAD_PARAMS"), body(issued, "LOAD_KERNELS")
        m.d.sync += [self._product.eq(0), self._pe.eq(0), self._is_empty.eq(1)]
        m.d.comb += row.last.eq(1)
        with m.If(self._is["LOAD_PARAMS"]):
            m.d.comb += [
                row.tag.kind.eq(Kind.PARAMS),
                row.address.eq(params.source),
                row.length.eq(params.count * STEP_ENTRY_BYTES),
                self.rows.valid.eq(params.count != 0),
            ]
            with m.If((params.count == 0) | self.rows.ready):
                m.d.sync += self._state.eq(State.JOB)
        with m.Elif(self._is["LOAD_KERNELS"]):
            m.d.comb += [
                row.tag.kind.eq(Kind.INDEX),
                row.address.eq(Cat(Const(0, 1), kernels.index[1:])),
                row.length.eq(kernels.count << 1),
                self.rows.valid.eq(kernels.count != 0),
            ]
            m.d.sync += [self._multiplicand.eq(kernels.count), self._multiplier.eq(Mux(kernels.with_data, kernels.taps, 0))]
            with m.If((kernels.count == 0) | self.rows.ready):
                m.d.sync += self._state.eq(State.MULTIPLY)
        with m.Else():
            m.d.sync += self._state.eq(State.BOX)

    def _rectangles(self) -> list[data.View]:
        """The rectangles of the map at hand, which the two kinds hold at different places."""
        inputs, error = body(self.instructions.payload, "LOAD_INPUT"), body(self.instructions.payload, "LOAD_ERROR")
        found = []
        for pe in range(self.sizes.pes):
            sides = [
                Mux(self._is["LOAD_ERROR"], error[f"out{pe}_{side}"], inputs[f"in{pe}_{side}"])
                for side in ("top", "bottom", "left", "right")
            ]
            found.append(data.View(rectangle_layout(), Cat(*sides)))
        return found

    def _find_box(self, m: Module) -> None:
        """Row and column bounds of one PE after the other."""
        issued, box = self.instructions.payload, self._box
        inputs, error = body(issued, "LOAD_INPUT"), body(issued, "LOAD_ERROR")
        mine, found = Signal(rectangle_layout()), self._pe == self.sizes.pes
        m.d.comb += Value.cast(mine).eq(Array([Value.cast(each) for each in self._rectangles()])[self._pe])
        with m.If((mine.bottom > mine.top) & (mine.right > mine.left) & ~found):
            m.d.sync += self._is_empty.eq(0)
            for low, high, last in (("top", "bottom", "last_row"), ("left", "right", "last_column")):
                with m.If(self._is_empty | (mine[low] < box[low])):
                    m.d.sync += box[low].eq(mine[low])
                with m.If(self._is_empty | (mine[high] > box[last])):
                    m.d.sync += box[last].eq(mine[high] - 1)
        m.d.sync += self._pe.eq(self._pe + 1)
        with m.If(found):
            m.d.sync += [
                self._state.eq(State.MULTIPLY),
                self._multiplicand.eq(Mux(self._is["LOAD_ERROR"], error.row_words, inputs.row_words)),
                self._multiplier.eq(box.top),
                self._channels_left.eq(self._channels()),
            ]

    def _channels(self) -> Value:
        """Channels that arrive: those of all owners, or as many as there are."""
        issued, machine = self.instructions.payload, self.machine
        inputs, error = body(issued, "LOAD_INPUT"), body(issued, "LOAD_ERROR")
        of_groups = error.channels * machine.groups
        of_owners = Mux(error.channel_split, of_groups * machine.pes_per_group, of_groups)
        of_error = Mux(of_owners < error.total_channels, of_owners, error.total_channels)
        return Mux(self._is["LOAD_ERROR"], of_error, inputs.channels)

    def _multiply(self, m: Module) -> None:
        """Lowest bit first, until no bit is left."""
        m.d.sync += [
            self._product.eq(self._product + Mux(self._multiplier[0], self._multiplicand, 0)),
            self._multiplicand.eq(self._multiplicand << 1),
            self._multiplier.eq(self._multiplier >> 1),
        ]
        with m.If((self._multiplier >> 1) == 0):
            m.d.sync += self._state.eq(State.JOB)

    def _give_job(self, m: Module) -> None:
        issued, lanes = self.instructions.payload, self.machine.lanes
        inputs, error = body(issued, "LOAD_INPUT"), body(issued, "LOAD_ERROR")
        first = Signal(40)
        source = Mux(self._is["LOAD_ERROR"], error.source, inputs.source)
        m.d.comb += [self.jobs.valid.eq(1), first.eq(source + (self._product + self._box.left) * lanes)]
        m.d.sync += [
            self._row_address.eq(first),
            self._channel_address.eq(first),
            self._rows_left.eq(self._box.last_row - self._box.top),
        ]
        with m.If(self.jobs.ready):
            with m.If(self._is["LOAD_PARAMS"]):
                self._done(m)
            with m.Elif(self._is["LOAD_KERNELS"]):
                with m.If(self._product == 0):
                    self._done(m)
                with m.Else():
                    m.d.sync += self._state.eq(State.WEIGHTS)
            with m.Elif(self._is_empty | (self._channels_left == 0)):
                self._done(m)
            with m.Else():
                m.d.sync += self._state.eq(State.ROWS)

    def _ask_rows(self, m: Module) -> None:
        issued, row, lanes = self.instructions.payload, self.rows.payload, self.machine.lanes
        inputs, error = body(issued, "LOAD_INPUT"), body(issued, "LOAD_ERROR")
        is_error, next_channel = self._is["LOAD_ERROR"], Signal(40)
        m.d.comb += [
            next_channel.eq(self._channel_address + Mux(is_error, error.channel_words, inputs.channel_words) * lanes),
            self.rows.valid.eq(1),
            row.address.eq(self._row_address),
            row.length.eq((self._box.last_column - self._box.left + 1)[:11] * lanes),
            row.last.eq((self._rows_left == 0) & (self._channels_left == 1)),
            row.tag.kind.eq(Kind.WORDS),
        ]
        with m.If(self.rows.ready):
            with m.If(self._rows_left != 0):
                m.d.sync += [
                    self._rows_left.eq(self._rows_left - 1),
                    self._row_address.eq(self._row_address + Mux(is_error, error.row_words, inputs.row_words) * lanes),
                ]
            with m.Else():
                m.d.sync += [
                    self._rows_left.eq(self._box.last_row - self._box.top),
                    self._row_address.eq(next_channel),
                    self._channel_address.eq(next_channel),
                    self._channels_left.eq(self._channels_left - 1),
                ]
            with m.If(row.last):
                self._done(m)

    def _ask_weights(self, m: Module) -> None:
        row, kernels = self.rows.payload, body(self.instructions.payload, "LOAD_KERNELS")
        m.d.comb += [
            self.rows.valid.eq(1),
            row.address.eq(kernels.data),
            row.length.eq(self._product),
            row.last.eq(1),
            row.tag.kind.eq(Kind.WEIGHTS),
        ]
        with m.If(self.rows.ready):
            self._done(m)

    def _jobs(self, m: Module) -> None:
        """What the instruction says, for those who put the data away."""
        issued, sizes = self.instructions.payload, self.sizes
        job = self.jobs.payload
        params, kernels = body(issued, "LOAD_PARAMS"), body(issued, "LOAD_KERNELS")
        with m.If(self._is["LOAD_PARAMS"]):
            m.d.comb += job.kind.eq(Kind.PARAMS)
            m.d.comb += [job.of.params[name].eq(params[name]) for name in ("first", "count")]
        with m.Elif(self._is["LOAD_KERNELS"]):
            to = job.of.kernels
            m.d.comb += job.kind.eq(Kind.INDEX)
            m.d.comb += [to[name].eq(kernels[name]) for name, _ in to.shape() if name in body_layout("LOAD_KERNELS").members]
            m.d.comb += [
                to.with_data.eq(kernels.with_data & (kernels.taps != 0)),
                to.index_at.eq(kernels.index[: sizes.granule_bits] & ~1),
                to.data_at.eq(kernels.data[: sizes.granule_bits]),
            ]
        with m.Else():
            inputs, error = body(issued, "LOAD_INPUT"), body(issued, "LOAD_ERROR")
            of_words, is_error = job.of.words, self._is["LOAD_ERROR"]
            m.d.comb += [
                job.kind.eq(Kind.WORDS),
                of_words.is_error.eq(is_error),
                of_words.empty.eq(self._is_empty | (self._channels_left == 0)),
                of_words.box.eq(self._box),
                of_words.all_channels.eq(self._channels_left),
                of_words.channels.eq(Mux(is_error, error.channels, inputs.channels)),
                of_words.channel_split.eq(is_error & error.channel_split),
                of_words.base.eq(Mux(is_error, error.lane_base, inputs.buffer)),
                of_words.slot_words.eq(Mux(is_error, error.slot_words, inputs.slot_words)),
                *(of_words.rectangles[pe].eq(mine) for pe, mine in enumerate(self._rectangles())),
            ]
