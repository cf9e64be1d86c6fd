"""The control port: registers on AXI4-Lite, made from the table of `fixgrad.machine.registers`."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.bus import Axi4LiteSignature
from fixgrad.gateware.axi.lite import LiteSlave
from fixgrad.gateware.control.counter_bank import COUNTER_BITS
from fixgrad.machine import Machine
from fixgrad.machine.registers import ADDRESS_SPACE, COUNTERS, REGISTER_BY_NAME, REGISTERS, Access, Register, reset_value

#: Place of the counters' first register among all; they follow each other in the order of COUNTERS, low half and high half.
_FIRST_COUNTER = REGISTER_BY_NAME[f"{COUNTERS[0]}_LOW"].offset // 4


def _is_constant(register: Register) -> bool:
    """Identity, sizes, magic: what the machine was built with."""
    return register.access is Access.READ and (register.reset is None or register.reset != 0)


def wide_names() -> tuple[str, ...]:
    """Names of the 64-bit values that are two registers, NAME_LOW and NAME_HIGH."""
    names = [register.name for register in REGISTERS]
    return tuple(name[:-4] for name in names if name.endswith("_LOW") and f"{name[:-4]}_HIGH" in names)


def input_names() -> dict[str, int]:
    """Values that the machine shows to the host, but for counters: name -> bits (64 where two registers hold it)."""
    wide = wide_names()
    found: dict[str, int] = {}
    for register in REGISTERS:
        base = _base(register)
        if register.access is Access.READ and not _is_constant(register) and base not in COUNTERS:
            found |= {base: 64} if base in wide else {register.name: 32}
    return found


def _base(register: Register) -> str:
    return register.name.removesuffix("_LOW").removesuffix("_HIGH")


class RegisterBlock(wiring.Component):
    """All registers of a machine. An access to an offset that has none, a write to a read-only register, or a write to a
    setting while the machine is busy is answered with SLVERR and changes nothing.

    Members:
        bus: AXI4-Lite, from the host.
        busy: a program runs.
        settings: name -> value of each RW register (members `NAME`, upper case).
        shown: values that the host reads (members `show_NAME`).
        counter_turn, counter_value: a counter, by its place in `COUNTERS`, and its value; each has its turn. A read of a low half
            waits for that, and keeps the high half.
        pulses: for each bit of a WO register a pulse (members `NAME_bit`).
        events: for each W1C register the bits to set (members `set_NAME`); `NAME` is its value.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        members = {
            "bus": In(Axi4LiteSignature(address_bits=ceil_log2(ADDRESS_SPACE))),
            "busy": In(1),
            "counter_turn": In(range(len(COUNTERS))),
            "counter_value": In(COUNTER_BITS),
        }
        for register in REGISTERS:
            if register.access is Access.READ_WRITE:
                members[register.name] = Out(32, init=reset_value(register, machine))
            elif register.access is Access.WRITE_ONE_TO_CLEAR:
                members |= {register.name: Out(32), f"set_{register.name}": In(32)}
            elif register.access is Access.PULSE:
                members |= {f"{register.name}_{bits.name}": Out(bits.width) for bits in register.bits}
        members |= {f"show_{name}": In(bits) for name, bits in input_names().items()}
        super().__init__(members)

    def setting(self, name: str) -> Value:
        """The value of a setting; NAME_LOW and NAME_HIGH together where it is two registers."""
        if name in wide_names():
            return Cat(getattr(self, f"{name}_LOW"), getattr(self, f"{name}_HIGH"))
        return getattr(self, name)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = LiteSlave(ceil_log2(ADDRESS_SPACE))
        wiring.connect(m, wiring.flipped(self.bus), slave.bus)
        word = slave.address[2:]
        for register in REGISTERS:
            if register.access is Access.WRITE_ONE_TO_CLEAR:
                m.d.sync += getattr(self, register.name).eq(
                    getattr(self, register.name) | getattr(self, f"set_{register.name}")
                )
        m.d.comb += slave.write_error.eq(1)
        with m.If(slave.write), m.Switch(word):
            for register in REGISTERS:
                if register.access is not Access.READ:
                    with m.Case(register.offset // 4):
                        self._write(m, register, slave)
        self._read(m, slave, word)
        return m

    def _read(self, m: Module, slave: LiteSlave, word: Value) -> None:
        read_data, read_error, waits = Signal(32), Signal(), Signal()
        m.d.comb += [slave.read_data.eq(read_data), slave.read_error.eq(read_error), slave.read_wait.eq(waits)]
        wanted = Signal(range(2 * len(COUNTERS)))
        high = Signal(32)
        m.d.comb += wanted.eq(word - _FIRST_COUNTER)
        with m.If(slave.read):
            m.d.sync += [read_data.eq(0), read_error.eq(1)]
            with m.Switch(word):
                for register in REGISTERS:
                    with m.Case(register.offset // 4):
                        m.d.sync += read_error.eq(0)
                        if _base(register) not in COUNTERS:
                            m.d.sync += read_data.eq(self._value(register))
                        elif register.name.endswith("_HIGH"):
                            m.d.sync += read_data.eq(high)
                        else:
                            m.d.sync += waits.eq(1)
        with m.If(waits & (self.counter_turn == wanted[1:])):
            m.d.sync += [waits.eq(0), Cat(read_data, high).eq(self.counter_value)]

    def _write(self, m: Module, register: Register, slave: LiteSlave) -> None:
        strobes = Cat(*(slave.write_strobes[byte].replicate(8) for byte in range(4)))
        data = slave.write_data & strobes
        if register.access is Access.PULSE:
            m.d.comb += slave.write_error.eq(0)
            m.d.comb += [
                getattr(self, f"{register.name}_{bits.name}").eq(data[bits.low : bits.low + bits.width])
                for bits in register.bits
            ]
            return
        held = getattr(self, register.name)
        if register.access is Access.WRITE_ONE_TO_CLEAR:
            m.d.comb += slave.write_error.eq(0)
            m.d.sync += held.eq((held & ~data) | getattr(self, f"set_{register.name}"))
            return
        m.d.comb += slave.write_error.eq(self.busy)
        m.d.sync += held.eq(Mux(self.busy, held, (held & ~strobes) | data))

    def _value(self, register: Register) -> Value:
        """What a read of a register that is no counter returns."""
        if _is_constant(register):
            return Const(reset_value(register, self.machine), 32)
        if register.access is Access.PULSE:
            return Const(0, 32)
        if register.access is not Access.READ:
            return getattr(self, register.name)
        if (base := _base(register)) in wide_names():
            shown: Value = getattr(self, f"show_{base}")
            return shown[32:] if register.name.endswith("_HIGH") else shown[:32]
        return getattr(self, f"show_{register.name}")
