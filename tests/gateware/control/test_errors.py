"""Whatever is wrong with a program, its memory or its host: the machine stops with a code, the place and the address."""

from collections.abc import Callable
from typing import Any

import pytest

from fixgrad.gateware.simulation import BenchError, DramTiming, Hostility
from fixgrad.machine import identity, preset
from fixgrad.machine.elementwise_instructions import ELEMENTWISE_KINDS
from fixgrad.machine.encoding import Instruction, encode_program, used_bits
from fixgrad.machine.instructions import BY_OPCODE, KINDS, Unit
from fixgrad.machine.registers import ErrorCode, register

MakeHost = Callable[..., Any]
TINY = preset("tiny")
HALT = Instruction("HALT")
LOAD = Instruction("LOAD_PARAMS")
SLVERR = 2


def stops_at(mine: Any, program: bytes, code: ErrorCode, index: int) -> None:
    """The program fails with this code at this place, and the machine runs the next one."""
    assert mine.run(program) is code
    assert mine.read("ERROR_INSTRUCTION") == index
    assert mine.run([LOAD, HALT]) is ErrorCode.NONE
    assert mine.read("ERROR_INSTRUCTION") == 0


@pytest.mark.parametrize("opcode", [*(kind.opcode for kind in ELEMENTWISE_KINDS), max(BY_OPCODE) + 1, 127, 255])
def test_illegal_opcode(host: MakeHost, opcode: int) -> None:
    stops_at(host(), LOAD.encode() + bytes([opcode]) + bytes(127) + HALT.encode(), ErrorCode.ILLEGAL_OPCODE, 1)


@pytest.mark.parametrize("name", [kind.name for kind in KINDS])
def test_a_bit_behind_the_last_field(host: MakeHost, name: str) -> None:
    mine = host()
    for bit in (used_bits(name), 1023):
        word = int.from_bytes(Instruction(name).encode(), "little") | 1 << bit
        stops_at(mine, LOAD.encode() * 2 + word.to_bytes(128, "little"), ErrorCode.NONZERO_PADDING, 2)


@pytest.mark.parametrize(
    "bad",
    [
        Instruction("LOAD_KERNELS", group=TINY.groups),
        Instruction("UPDATE", group=63),
        Instruction("UPDATE", pe=TINY.pes_per_group),
        Instruction("LOAD_PARAMS", first=1, count=TINY.param_words),
        Instruction("POST", param=TINY.param_words),
        Instruction("POST", images=TINY.lanes + 1),
        Instruction("COMPUTE", buffer=TINY.input_words),
        Instruction("COMPUTE", in1_top=3, in1_bottom=2),
        Instruction("STATISTICS", count=257),
    ],
    ids=lambda instruction: str(instruction),
)
def test_entries_that_the_machine_lacks(host: MakeHost, bad: Instruction) -> None:
    stops_at(host(), encode_program([LOAD, bad, HALT]), ErrorCode.OUT_OF_RANGE, 1)


def test_a_program_without_halt(host: MakeHost) -> None:
    stops_at(host(), encode_program([LOAD, LOAD, LOAD]), ErrorCode.NO_HALT, 3)


@pytest.mark.parametrize("unit", ["load", "compute", "post", "update"])
def test_a_wait_for_what_does_not_stand_before(host: MakeHost, unit: str) -> None:
    """It would never be met."""
    before = [LOAD, Instruction("COMPUTE"), Instruction("POST"), *(Instruction("UPDATE", group=g) for g in range(TINY.groups))]
    good, bad = (Instruction("LOAD_PARAMS", **{f"wait_{unit}": count}) for count in (1, 2 + (unit == "load")))
    mine = host()
    assert mine.run([*before, good, HALT]) is ErrorCode.NONE
    stops_at(mine, encode_program([*before, good, bad, HALT]), ErrorCode.UNREACHABLE_WAIT, len(before) + 1)


def test_halt_too_may_wait_only_for_what_stands_before(host: MakeHost) -> None:
    stops_at(host(), encode_program([LOAD, Instruction("HALT", wait_load=2)]), ErrorCode.UNREACHABLE_WAIT, 1)


def test_a_wait_for_the_group_that_has_no_update(host: MakeHost) -> None:
    program = [Instruction("UPDATE", group=0), Instruction("LOAD_PARAMS", wait_update=1), HALT]
    stops_at(host(), encode_program(program), ErrorCode.UNREACHABLE_WAIT, 1)


def test_a_program_for_another_machine(host: MakeHost) -> None:
    mine = host()
    mine.prepare(encode_program([LOAD, HALT]))
    mine.write_wide("EXPECTED_IDENTITY", int(identity(TINY), 16) ^ 1 << 63)
    mine.start()
    assert mine.finish() is ErrorCode.WRONG_IDENTITY
    assert mine.bench.counts(0).read_bursts == 0
    assert mine.run([LOAD, HALT]) is ErrorCode.NONE


@pytest.mark.parametrize(("address", "length"), [(0x1040, 2), (1 << 40, 2), (0x1000, 1 << 24)])
def test_settings_out_of_range(host: MakeHost, address: int, length: int) -> None:
    mine = host()
    mine.prepare(encode_program([LOAD, HALT]))
    mine.write_wide("PROGRAM", address)
    mine.write("PROGRAM_LENGTH", length)
    mine.start()
    assert mine.finish() is ErrorCode.OUT_OF_RANGE


def test_an_empty_program(host: MakeHost) -> None:
    mine = host()
    mine.prepare(b"", length=0)
    mine.start()
    assert mine.finish() is ErrorCode.NO_HALT


def test_a_program_outside_of_the_memory(host: MakeHost) -> None:
    mine = host()
    mine.prepare(encode_program([LOAD, HALT]))
    mine.write_wide("MEMORY_BASE", 0x1001)
    mine.start()
    assert mine.finish() is ErrorCode.OUTSIDE_MEMORY
    assert mine.read_wide("ERROR_ADDRESS") == 0x1000
    assert mine.bench.counts(0).read_bursts == 0


@pytest.mark.parametrize("hostility", [Hostility(), Hostility(5, 200, 9, True)])
def test_a_read_error_in_the_program(host: MakeHost, hostility: Hostility) -> None:
    mine = host(DramTiming(25), hostility)
    program = encode_program([LOAD] * 40 + [HALT])
    bad = 0x1000 + 17 * 128
    mine.bench.fault(bad, bad + 128, SLVERR)
    assert mine.run(program) is ErrorCode.MEMORY_READ
    assert mine.read_wide("ERROR_ADDRESS") == bad & ~255  # the burst: 16 beats of 16 bytes
    assert mine.read("ERROR_INSTRUCTION") in (15, 16, 17)
    mine.bench.clear_faults()
    assert mine.run(program) is ErrorCode.NONE


def test_an_error_of_a_unit(host: MakeHost) -> None:
    mine = host()
    mine.prepare(encode_program([Instruction("POST"), LOAD, HALT]))
    mine.bench.set("fault", 1)
    mine.start()
    assert mine.finish() is ErrorCode.MEMORY_WRITE
    assert mine.read("ERROR_INSTRUCTION") == 1
    assert mine.read_wide("ERROR_ADDRESS") == 0x1234


def test_abort(host: MakeHost) -> None:
    mine = host(DramTiming(50))
    mine.bench.set("hang", 1)
    mine.prepare(encode_program([LOAD, Instruction("COMPUTE", wait_load=1), HALT]))
    mine.write("TIMEOUT", 0)
    mine.start()
    mine.bench.step(500)
    assert mine.read("STATUS") == 1
    assert mine.write("CONTROL", 2) == 0
    assert mine.finish() is ErrorCode.ABORTED
    assert mine.read("ERROR_INSTRUCTION") == 0
    mine.bench.set("hang", 0)
    assert mine.run([LOAD, HALT]) is ErrorCode.NONE


def test_a_unit_that_hangs(host: MakeHost) -> None:
    """The instruction to blame is the oldest that has not ended."""
    mine = host()
    mine.prepare(encode_program([LOAD, Instruction("POST", wait_load=1), Instruction("UPDATE", group=1, wait_post=1), HALT]))
    mine.start()
    assert mine.sinks["ended", Unit.LOAD, 0].wait(1, 2000)
    mine.bench.set("hang", 1)
    assert mine.finish() is ErrorCode.TIMEOUT
    assert mine.read("ERROR_INSTRUCTION") == 1
    assert 2000 <= mine.read_wide("CYCLES") < 3000
    mine.bench.set("hang", 0)
    assert mine.run([LOAD, HALT]) is ErrorCode.NONE


def test_a_memory_that_answers_nothing(host: MakeHost) -> None:
    """The machine says so and refuses to start again until the bursts that are out have ended."""
    mine = host()
    mine.bench.freeze(0)
    mine.prepare(encode_program([LOAD, HALT]))
    mine.start()
    assert mine.finish() is ErrorCode.TIMEOUT
    mine.start()
    assert mine.finish() is ErrorCode.TIMEOUT
    mine.bench.freeze(0, False)
    mine.bench.step(100)
    assert mine.run([LOAD, HALT]) is ErrorCode.NONE


def test_abort_in_the_middle_of_a_fetch_on_a_hostile_memory(host: MakeHost) -> None:
    """At any cycle: the machine stops, and runs the next program."""
    mine = host(DramTiming(20), Hostility(9, 150, 12, True))
    program = encode_program([LOAD, Instruction("COMPUTE")] * 60 + [HALT])
    for cycle in range(5, 200, 13):
        mine.prepare(program)
        mine.start()
        mine.bench.step(cycle)
        mine.write("CONTROL", 2)
        assert mine.finish() is ErrorCode.ABORTED
        assert mine.run([LOAD, HALT]) is ErrorCode.NONE


class TestControlPort:
    def test_constants_tell_which_machine_it_is(self, host: MakeHost) -> None:
        mine = host(hostility=Hostility(4, 300, 5))
        assert mine.read_wide("IDENTITY") == int(identity(TINY), 16)
        assert mine.read("MAGIC") == 0x46584752
        assert (mine.read("GROUPS"), mine.read("LANES"), mine.read("INPUT_WORDS")) == (2, 4, 256)

    def test_settings_keep_what_is_written_byte_by_byte(self, host: MakeHost) -> None:
        mine = host(hostility=Hostility(6, 300, 5))
        offset = register("PROGRAM_LOW").offset
        for strobes, value, wanted in ((15, 0x11223344, 0x11223344), (0b0101, 0xAABBCCDD, 0x11BB33DD), (0, 0, 0x11BB33DD)):
            assert mine.bench.write_register(0, offset, value, strobes) == 0
            assert mine.read("PROGRAM_LOW") == wanted

    @pytest.mark.parametrize("name", ["MAGIC", "STATUS", "CYCLES_LOW", "LANES"])
    def test_what_is_read_only_stays(self, host: MakeHost, name: str) -> None:
        mine = host()
        before = mine.read(name)
        assert mine.write(name, 0xFFFF_FFFF) == SLVERR
        assert mine.read(name) == before

    def test_offsets_without_a_register(self, host: MakeHost) -> None:
        mine = host()
        offset = register("LOAD_WORDS").offset + 4
        assert mine.bench.read_register(0, offset) == (0, SLVERR)
        assert mine.bench.write_register(0, offset, 1) == SLVERR

    def test_settings_hold_while_a_program_runs(self, host: MakeHost) -> None:
        mine = host()
        mine.bench.set("hang", 1)
        mine.prepare(encode_program([LOAD, HALT]))
        mine.start()
        assert mine.write("PROGRAM_LENGTH", 99) == SLVERR
        assert mine.write("CONTROL", 1) == 0  # ignored
        assert mine.read("PROGRAM_LENGTH") == 2
        mine.bench.set("hang", 0)
        assert mine.finish() is ErrorCode.NONE
        assert mine.write("PROGRAM_LENGTH", 99) == 0

    def test_no_interrupt_that_is_not_enabled(self, host: MakeHost) -> None:
        mine = host()
        mine.prepare(encode_program([LOAD, HALT]))
        mine.write("INTERRUPT_ENABLE", 2)
        mine.start()
        assert not mine.bench.run_until("irq", 1, 3000)
        assert mine.read("STATUS") == 2
        assert mine.read("INTERRUPT_STATUS") == 1
        mine.write("INTERRUPT_ENABLE", 1)
        assert mine.bench.get("irq") == 1
        mine.write("INTERRUPT_STATUS", 2)
        assert mine.bench.get("irq") == 1
        mine.write("INTERRUPT_STATUS", 1)
        assert mine.bench.get("irq") == 0

    def test_the_high_half_belongs_to_the_low_one(self, host: MakeHost) -> None:
        """A counter read in two accesses while it runs: CYCLES passes 2**32 in no test, so the latch is seen by its age."""
        mine = host()
        mine.bench.set("hang", 1)
        mine.prepare(encode_program([LOAD, HALT]))
        mine.write("TIMEOUT", 0)
        mine.start()
        first = mine.read_wide("CYCLES")
        mine.bench.step(1000)
        assert 1000 < mine.read_wide("CYCLES") - first < 1100

    def test_a_chip_in_reset_does_not_answer(self, host: MakeHost) -> None:
        mine = host()
        mine.bench.set("aresetn", 0)
        with pytest.raises(BenchError, match=r"no answer to the read of register 0x0 within 50 cycles"):
            mine.bench.read_register(0, 0, limit=50)
