"""How the figures of `fixgrad.machine.resources` come about: one method for each kind of block, with its formula."""

from dataclasses import dataclass

from fixgrad.errors import UsageError
from fixgrad.machine.elementwise_instructions import RECORD_BYTES
from fixgrad.machine.encoding import used_bits
from fixgrad.machine.instructions import INSTRUCTION_BYTES, STEP_ENTRY_BYTES, Unit, kinds_of
from fixgrad.machine.memory_blocks import luts_for, memory_for
from fixgrad.machine.parameters import TAPS_PER_WORD, Machine
from fixgrad.machine.registers import COUNTERS, REGISTERS
from fixgrad.numbers.counter_hash import HASH_ROUNDS

ACCUMULATOR_BITS, OPERAND_BITS = 32, 8
#: Signed width of an 8-bit unsigned coefficient of the update, and of the widest value that it multiplies.
_COEFFICIENT_BITS, _VALUE_BITS = 9, 32
#: Width of the update's terms before they are added (fixgrad.network.update.TERM_BITS), and stages of a shift by up to 63.
_TERM_BITS, _TERM_STAGES = 40, 6
#: Range registers of the field `statistics`, and bits of each.
_RANGE_REGISTERS, _RANGE_BITS = 256, 96
#: Bits that a counter collects until its turn, on average.
_BITS_A_ROUND = 7
#: Words of a channel's read or write FIFO: the memory's answer to a read may take 500 ns behind a refresh.
_DMA_WORDS = 128
#: Streams that an update lane reads or writes, each with a FIFO of 64 words of 8 bytes.
_UPDATE_STREAMS, _STREAM_BITS, _STREAM_WORDS = 6, 64, 64
#: Words of a post-processor's FIFOs: shallow enough for LUT RAM.
_POST_WORDS = 32
#: Instructions that wait in front of each unit, decoded, in LUT RAM: wide and shallow, they would waste blocks.
_WAITING_INSTRUCTIONS = 16
#: The loss unit: entries and bits of its table of powers, and exponentials of the classes of one image.
_EXP_ENTRIES, _EXP_BITS, _MOST_CLASSES = 256, 17, 4096


#: Operands of the elementwise unit's products, width of their sum, of a channel's sum of products, and of a scalar.
_FIRST_PRODUCT, _SECOND_PRODUCT, _SQUARE = (32, 20), (38, 16), (16, 16)
_PRODUCTS_BITS, _TOTAL_BITS, _SCALAR_BITS = 57, 54, 64


@dataclass(frozen=True, slots=True)
class Fabric:
    """How a family of chips builds arithmetic.

    Attributes:
        multiplier: operand widths of one multiplier slice, both signed.
        accumulates: whether the slice also holds a lane's 32-bit accumulator.
        adder: LUTs for a bit of an adder or comparator.
        mux: LUTs for a bit of a choice between two.
        stage: LUTs for a bit of one stage of a shifter (a LUT6 holds two stages).
        source: of these.
    """

    multiplier: tuple[int, int]
    accumulates: bool
    adder: float
    mux: float
    stage: float
    source: str


_ULTRASCALE = Fabric((27, 18), True, 1.0, 0.5, 0.5, "UG574 (CLB), UG579 (DSP48E2)")
_ECP5 = Fabric((18, 18), False, 1.0, 1.0, 1.0, "ECP5 family data sheet: CCU2C, LUT4, MULT18X18D")
#: By the block memory that a `Device` names.
FABRICS = {"BRAM36": _ULTRASCALE, "RAMB18": _ULTRASCALE, "URAM288": _ULTRASCALE, "DP16KD": _ECP5}


@dataclass(frozen=True, slots=True)
class Controller:
    """One channel's memory controller with its PHY, in logic."""

    dsp: int
    blocks: float
    lut: int
    ff: int
    source: str


#: By the beginning of the name of a memory standard.
CONTROLLERS = {
    "ddr4": Controller(3, 25.5, 13_000, 15_000, "DDR4 SDRAM MIG, 64 bits (PG150); from memory, unverified"),
    "hbm2": Controller(0, 0.0, 0, 0, "hard on the chip (PG276)"),
    "sdr": Controller(0, 0.0, 600, 500, "estimate: a state machine, counters, one register a pin"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of block of the machine.

    Attributes:
        name: what it is.
        count: how many there are.
        dsp, blocks, lut, ff: of all of them together; `blocks` in the device's own memory blocks (halves for BRAM36).
        formula: how the figures of one come about.
    """

    name: str
    count: int
    dsp: int
    blocks: float
    lut: int
    ff: int
    formula: str


def multiplier_slices(width_a: int, width_b: int, slice_widths: tuple[int, int]) -> int:
    """Slices of a signed multiplication: partial products of the slice's size; all but the top one are unsigned, a bit less."""

    def parts(width: int, own: int) -> int:
        return 1 if width <= own else 1 + -(-(width - own) // (own - 1))

    wide, narrow = slice_widths
    return min(parts(width_a, wide) * parts(width_b, narrow), parts(width_a, narrow) * parts(width_b, wide))


def _widest(unit: Unit, machine: Machine) -> int:
    """Bits of a unit's widest instruction behind the dispatcher, which has taken the opcode and the waits off."""
    return max(used_bits(kind.name) for kind in kinds_of(machine) if kind.unit is unit) - used_bits("HALT")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The parts of a machine."""

    machine: Machine

    @property
    def _kind(self) -> str:
        return self.machine.device.block_kind

    @property
    def _fabric(self) -> Fabric:
        if self._kind not in FABRICS:
            raise UsageError(f"device.block_kind is {self._kind!r}: choose {', '.join(FABRICS)}")
        return FABRICS[self._kind]

    def _part(
        self,
        name: str,
        count: int,
        formula: str,
        *,
        dsp: int = 0,
        lut: float = 0,
        ff: float = 0,
        queue_bits: int = 0,
        memories: tuple[tuple[int, int, int], ...] = (),
    ) -> Part:
        """A part from the figures of one of `count`.

        `memories` are (how many, bits, words) in each; `queue_bits` is the width of its queue of instructions.
        """
        blocks = 0.0
        if queue_bits:
            lut, ff = lut + luts_for(queue_bits, _WAITING_INSTRUCTIONS, self._kind), ff + queue_bits
        for copies, width, depth in memories:
            found = memory_for(width, depth, self._kind)
            blocks, lut = blocks + copies * found.blocks, lut + copies * found.luts
        return Part(name, count, count * dsp, count * blocks, round(count * lut), round(count * ff), formula)

    def memory(self, name: str, count: int, width: int, depth: int, formula: str) -> Part:
        """`count` memories of `depth` words of `width` bits and nothing else."""
        return self._part(name, count, f"{formula}: {depth} x {width}", memories=((1, width, depth),))

    def lanes(self) -> Part:
        """The MACs."""
        fabric = self._fabric
        lut = fabric.mux * (OPERAND_BITS + ACCUMULATOR_BITS)
        formula = "8 x 8 multiplier; choice of weight or error, of accumulator or loaded error"
        if fabric.accumulates:
            formula += "; the slice accumulates"
        else:
            lut += (fabric.adder + fabric.mux) * ACCUMULATOR_BITS
            formula += "; 32-bit accumulator in LUTs"
        ff = 2 * OPERAND_BITS + ACCUMULATOR_BITS
        return self._part("lanes (MACs)", self.machine.macs, formula, dsp=1, lut=lut, ff=ff)

    def kernel_queues(self) -> Part:
        """One a PE."""
        machine = self.machine
        places = (machine.lane_words - 1).bit_length() + (machine.input_words - 1).bit_length()
        width = TAPS_PER_WORD * OPERAND_BITS + places + 2
        formula = f"one a PE: {TAPS_PER_WORD} weights, {places} bits of coordinates, 2 marks"
        return self.memory("kernel queue", machine.pes, width, machine.kernel_words, formula)

    def pe_control(self) -> Part:
        """Counters of pixels and taps, addresses, skipping of taps outside of the image."""
        fabric, edge, address = self._fabric, 10, 14
        counters = 12 * edge * 2 * fabric.adder
        products = 2 * address * (address - 2) * fabric.adder
        choice = OPERAND_BITS * (TAPS_PER_WORD - 1) * fabric.mux
        return self._part(
            "PE control",
            self.machine.pes,
            "12 counters of 10 bits with limits; channel times slot words, twice, in LUTs; choice of one weight in 9",
            lut=counters + products + choice,
            ff=12 * edge * 2 + 4 * address + TAPS_PER_WORD * OPERAND_BITS,
        )

    def adder_trees(self) -> Part:
        """The sum over lanes in WG, and its addition to a gradient."""
        adders = self.machine.lanes
        formula = f"{adders - 1} adders of 32 bits over the lanes and one for the gradient, a register behind each"
        bits = adders * ACCUMULATOR_BITS
        return self._part("lane adder tree", self.machine.pes, formula, lut=self._fabric.adder * bits, ff=bits)

    def group_control(self) -> Part:
        """Instruction queue, broadcast registers, and the sum over the PEs that UPDATE drains."""
        machine = self.machine
        words = machine.lanes * OPERAND_BITS * machine.load_words
        sums = (machine.pes_per_group - 1) * ACCUMULATOR_BITS
        return self._part(
            "group control",
            machine.groups,
            f"queue of {_WAITING_INSTRUCTIONS} COMPUTEs; input word register; {machine.pes_per_group - 1} adders over PEs",
            lut=self._fabric.adder * sums,
            ff=words + sums,
            queue_bits=_widest(Unit.COMPUTE, machine),
        )

    def _hash_lut(self) -> float:
        """The counter hash, fully pipelined: two additions and an exclusive or a round."""
        return len(HASH_ROUNDS) * ACCUMULATOR_BITS * (2 * self._fabric.adder + 1)

    def post_processors(self) -> Part:
        """For each lane: bias, range, shift, rounding, saturation, comparison with the maximum, and the hash."""
        fabric, machine, bits = self._fabric, self.machine, ACCUMULATOR_BITS
        lane = 3 * fabric.adder * bits + 5 * fabric.stage * bits + 2 * fabric.adder * 16 + 2 * fabric.mux * 16
        hashes = self._hash_lut()
        sums = (machine.lanes - 1) * 16 * fabric.adder
        drain = machine.lanes * bits * (machine.groups * machine.pes_per_group // machine.post_processors - 1) * fabric.mux / 2
        word = machine.lanes * OPERAND_BITS
        return self._part(
            "post-processor",
            machine.post_processors,
            "a lane: bias, magnitude, 32-bit shift, rounding, saturation, maximum, 4 rounds of hash; choice of PE; "
            "sum of errors; FIFOs for mask, maxima and result",
            lut=machine.lanes * (lane + hashes) + sums + drain,
            ff=machine.lanes * (6 * bits + 3 * len(HASH_ROUNDS) * bits),
            queue_bits=_widest(Unit.POST, machine),
            memories=((3, word, _POST_WORDS),),
        )

    def update_lanes(self) -> Part:
        """Each serves some groups: three products, their alignment, rounding twice, and the hash."""
        fabric = self._fabric
        slices = 3 * multiplier_slices(_VALUE_BITS, _COEFFICIENT_BITS, fabric.multiplier)
        shifts = (2 * _TERM_BITS + 2 * _VALUE_BITS) * _TERM_STAGES * fabric.stage
        adders = (2 * _TERM_BITS + 4 * _VALUE_BITS) * fabric.adder
        return self._part(
            "update lane",
            self.machine.update_lanes,
            f"3 products of 32 x 9; 4 shifters; 6 adders; hash; {_UPDATE_STREAMS} FIFOs of {_STREAM_WORDS} x {_STREAM_BITS}",
            dsp=slices,
            lut=shifts + adders + self._hash_lut(),
            ff=10 * _TERM_BITS + 3 * len(HASH_ROUNDS) * _VALUE_BITS,
            queue_bits=_widest(Unit.UPDATE, self.machine),
            memories=((_UPDATE_STREAMS, _STREAM_BITS, _STREAM_WORDS),),
        )

    def loss_unit(self) -> Part:
        """One, serial: a table of powers, a product, a divider."""
        fabric = self._fabric
        return self._part(
            "loss unit",
            1,
            f"product 17 x 15; table {_EXP_ENTRIES} x {_EXP_BITS}; exponentials of {_MOST_CLASSES} classes; serial division",
            dsp=multiplier_slices(17, 16, fabric.multiplier),
            lut=4 * ACCUMULATOR_BITS * fabric.adder + 3 * ACCUMULATOR_BITS * fabric.mux + 5 * ACCUMULATOR_BITS * fabric.stage,
            ff=6 * ACCUMULATOR_BITS,
            memories=((1, _EXP_BITS, _EXP_ENTRIES), (1, _EXP_BITS, _MOST_CLASSES)),
        )

    def elementwise_lanes(self) -> Part:
        """Products, their sum, rounding twice, the maximum of a window, and the hash; the sums of channels beside them."""
        fabric, machine = self._fabric, self.machine
        slices = sum(multiplier_slices(*widths, fabric.multiplier) for widths in (_FIRST_PRODUCT, _SECOND_PRODUCT, _SQUARE))
        shifts = (_PRODUCTS_BITS + ACCUMULATOR_BITS) * 5 * fabric.stage
        adders = (3 * _PRODUCTS_BITS + 3 * ACCUMULATOR_BITS + _TOTAL_BITS) * fabric.adder
        word = machine.lanes * OPERAND_BITS
        return self._part(
            "elementwise lane",
            machine.elementwise_lanes,
            "products of 32 x 20, 38 x 16 and 16 x 16; 2 shifters; 3 adders of 57 bits; maximum, saturation, range; hash; a share "
            f"of the adder tree of {_TOTAL_BITS} bits and of 5 FIFOs of {_POST_WORDS} words",
            dsp=slices,
            lut=shifts + adders + self._hash_lut() + 5 * luts_for(word, _POST_WORDS, self._kind) / machine.elementwise_lanes,
            ff=6 * _PRODUCTS_BITS + _TOTAL_BITS + 3 * len(HASH_ROUNDS) * ACCUMULATOR_BITS,
        )

    def normaliser(self) -> Part:
        """The scalars of batch normalisation: one, serial."""
        fabric = self._fabric
        return self._part(
            "normalisation scalars",
            1,
            f"product 53 x 25; division and root of {_SCALAR_BITS} bits, 4 bits a cycle; 2 shifters; a record of {RECORD_BYTES} bytes",
            dsp=multiplier_slices(53, 25, fabric.multiplier),
            lut=(8 * fabric.adder + 2 * 6 * fabric.stage + 6 * fabric.mux) * _SCALAR_BITS,
            ff=8 * _SCALAR_BITS + 8 * RECORD_BYTES,
        )

    def load_unit(self) -> Part:
        """A read and a write FIFO for each channel, alignment to bytes, and addresses."""
        fabric, port = self._fabric, 8 * self.machine.memory.port_bytes
        stages = max((self.machine.memory.port_bytes - 1).bit_length(), 1)
        return self._part(
            "memory ports",
            self.machine.memory.channels,
            f"read and write FIFO of {_DMA_WORDS} words of the port; alignment to bytes both ways; 8 address generators",
            lut=2 * port * stages * fabric.stage + 8 * 3 * 40 * fabric.adder,
            ff=4 * port + 8 * 3 * 40,
            memories=((2, port, _DMA_WORDS),),
        )

    def small_memories(self) -> Part:
        """Step-table entries, read 8 bytes a cycle, and the range registers."""
        entries = self.machine.param_words * STEP_ENTRY_BYTES * 8 // 64
        return self._part(
            "parameters and ranges",
            1,
            f"step table {entries} x 64; {_RANGE_REGISTERS} range registers of {_RANGE_BITS} bits",
            lut=2 * _RANGE_BITS * self._fabric.adder,
            ff=2 * _RANGE_BITS,
            memories=((1, 64, entries), (1, _RANGE_BITS, _RANGE_REGISTERS)),
        )

    def fetch(self) -> Part:
        """Instruction fetch, dispatch by unit, and the completion counts that instructions wait for."""
        agents = 2 + 2 * self.machine.groups
        return self._part(
            "fetch and dispatch",
            1,
            f"FIFOs of {_WAITING_INSTRUCTIONS} instructions; completion counts of {agents} queues; 4 comparisons for each unit",
            lut=(agents * 24 * 2 + 4 * 4 * 24) * self._fabric.adder
            + luts_for(_widest(Unit.LOAD, self.machine), _WAITING_INSTRUCTIONS, self._kind),
            ff=agents * 24 + 8 * INSTRUCTION_BYTES,
            queue_bits=8 * INSTRUCTION_BYTES,
        )

    def control_port(self) -> Part:
        """The registers of the host interface with their counters."""
        counters = len(COUNTERS)
        registers = len(REGISTERS) - 2 * counters
        return self._part(
            "control port",
            1,
            f"{registers} registers of 32 bits to read from; {counters} counters of 64 bits in a memory, {_BITS_A_ROUND} more for each",
            lut=(64 + counters * _BITS_A_ROUND) * self._fabric.adder + (registers * 32 + counters * _BITS_A_ROUND) * self._fabric.mux,
            ff=3 * 64 + counters * _BITS_A_ROUND + 10 * 32,
            memories=((1, 64, counters),),
        )

    def controllers(self) -> Part:
        """One a channel, by the kind of memory; none for a machine without a device, which meets a simulated memory."""
        if not self.machine.device.blocks:
            return self._part("memory controller", 0, "no device")
        standard = self.machine.memory.standard
        found = next((item for start, item in CONTROLLERS.items() if standard.startswith(start)), None)
        if found is None:
            raise UsageError(f"memory.standard is {standard!r}: its controller is unknown; known are {', '.join(CONTROLLERS)}")
        count = self.machine.memory.channels
        figures = (count * found.dsp, count * found.blocks, count * found.lut, count * found.ff)
        return Part("memory controller", count, *figures, found.source)
