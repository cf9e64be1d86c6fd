"""A machine on the ULX3S 85F: its SDRAM behind the memory port, a host behind its serial line, clock and pins.

The board has an LFE5U-85F-6BG381C, 32 MB of 16-bit SDRAM, an oscillator of 25 MHz and a USB serial chip. Pins: the board's
published constraint file for its versions 2 and 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Instance, IOPort, Module, ResetSignal, Signal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from fixgrad.errors import UsageError
from fixgrad.gateware.axi.bus import Axi4LiteSignature, Axi4Signature
from fixgrad.gateware.machine import Accelerator
from fixgrad.gateware.synthesis.board.host_bridge import SerialHost
from fixgrad.gateware.synthesis.board.sdram import Sdram
from fixgrad.gateware.synthesis.board.sdram_timing import SdramPart
from fixgrad.machine import Machine

OSCILLATOR_MHZ = 25.0
#: Bits a second of the serial line.
BAUD = 1_000_000
#: Cycles that the reset lasts after the clock is stable.
_RESET_CYCLES = 64
#: Frequencies of the PLL's oscillator (ECP5 family data sheet, sysCLOCK PLL timing).
_VCO_MHZ = (400.0, 800.0)

#: Port -> site, bit 0 first.
SITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "clk_25mhz": ("G2",),
        "ftdi_rxd": ("L4",),  # from here to the host
        "ftdi_txd": ("M1",),  # from the host
        "led": ("B2", "C2", "C1", "D2"),
        "sdram_clk": ("F19",),
        "sdram_cke": ("F20",),
        "sdram_csn": ("P20",),
        "sdram_rasn": ("R20",),
        "sdram_casn": ("T19",),
        "sdram_wen": ("T20",),
        "sdram_a": ("M20", "M19", "L20", "L19", "K20", "K19", "K18", "J20", "J19", "H20", "N19", "G20", "G19"),
        "sdram_ba": ("P19", "N20"),
        "sdram_dqm": ("U19", "E20"),
        "sdram_d": (
            *("J16", "L18", "M18", "N18", "P18", "T18", "T17", "U20"),
            *("E19", "D20", "D19", "C20", "E18", "F18", "J18", "J17"),
        ),
    }
)
_INPUTS = ("clk_25mhz", "ftdi_txd")
_TRISTATE = "sdram_d"


@dataclass(frozen=True, slots=True)
class Pll:
    """Dividers of an EHXPLLL, fed back from its output.

    Attributes:
        reference: of the input. feedback: of the output before it meets the input. output: of the oscillator.
    """

    reference: int
    feedback: int
    output: int

    @classmethod
    def of(cls, mhz: float) -> "Pll":
        """For a clock from the oscillator of the board.

        Raises:
            UsageError: no dividers give exactly that frequency.
        """
        for reference in range(1, 9):
            feedback = mhz * reference / OSCILLATOR_MHZ
            if feedback >= 1 and feedback == int(feedback):
                low, high = _VCO_MHZ
                output = int((low + high) / 2 // mhz)
                if output >= 1 and low <= output * mhz <= high:
                    return cls(reference, int(feedback), output)
        raise UsageError(f"clock_mhz is {mhz:g}: the PLL makes multiples of 25 MHz over 1 to 8, such as 25, 37.5, 40 or 50")


class Ulx3s(Elaboratable):
    """The chip's top.

    Args:
        machine: with one memory channel of 8 to 64 bytes.

    Attributes:
        ports: for `amaranth.back`: name -> (signal or pin, direction).

    Raises:
        UsageError: the machine does not suit the board.
    """

    def __init__(self, machine: Machine) -> None:
        part = SdramPart()
        if machine.memory.channels != 1 or machine.memory.bytes_total > part.capacity:
            raise UsageError(
                f"machine {machine.name}: {machine.memory.channels} memory channels, {machine.memory.bytes_total:,} bytes: "
                f"the board has 1 of {part.capacity:,}; set memory.channels and memory.bytes_total"
            )
        self.machine, self.pll = machine, Pll.of(machine.clock_mhz)
        self.accelerator = Accelerator(machine)
        self._pins = {name: Signal(len(sites), name=name) for name, sites in SITES.items() if name != _TRISTATE}
        self._data = IOPort(len(SITES[_TRISTATE]), name=_TRISTATE)

    @property
    def ports(self) -> dict[str, tuple[Signal | IOPort, PortDirection]]:
        """Name -> (signal or pin, direction), as `amaranth.back.rtlil.convert` takes them."""
        found: dict[str, tuple[Signal | IOPort, PortDirection]] = {
            name: (signal, PortDirection.Input if name in _INPUTS else PortDirection.Output) for name, signal in self._pins.items()
        }
        return {**found, _TRISTATE: (self._data, PortDirection.Inout)}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clock = self._clock(m)
        m.submodules.core = core = self.accelerator
        memory, control = core.m_axi[0].signature, core.s_axi.signature
        axi = Axi4Signature(address_bits=memory.address_bits, data_bytes=memory.data_bytes, id_bits=memory.id_bits)
        divisor = round(self.machine.clock_mhz * 1e6 / BAUD)
        m.submodules.host = host = SerialHost(Axi4LiteSignature(address_bits=control.address_bits), axi, divisor)
        m.submodules.sdram = sdram = Sdram(axi, 2, self.machine.clock_mhz)
        wiring.connect(m, host.s_axi, core.s_axi)
        for master, port in zip((core.m_axi[0], host.m_axi), sdram.ports, strict=True):
            wiring.connect(m, master, port)
        self._memory_pins(m, sdram, clock)
        m.d.comb += [
            host.received.eq(self._pins["ftdi_txd"]),
            self._pins["ftdi_rxd"].eq(host.sent),
            self._pins["led"].eq(Cat(core.irq, ~host.sent, ~host.received, 1)),
        ]
        return m

    def _clock(self, m: Module) -> Signal:
        """The clock domain; reset until the PLL has locked. Returns the clock."""
        clock, locked, count = Signal(name="clock"), Signal(), Signal(range(_RESET_CYCLES + 1))
        m.domains.sync, m.domains.raw = ClockDomain("sync"), ClockDomain("raw", reset_less=True)
        pll = self.pll
        m.submodules.pll = Instance(
            "EHXPLLL",
            p_CLKI_DIV=pll.reference,
            p_CLKFB_DIV=pll.feedback,
            p_CLKOP_DIV=pll.output,
            p_CLKOP_CPHASE=pll.output - 1,
            p_CLKOP_ENABLE="ENABLED",
            p_FEEDBK_PATH="CLKOP",
            i_CLKI=self._pins["clk_25mhz"],
            i_CLKFB=clock,
            i_RST=Const(0, 1),
            i_STDBY=Const(0, 1),
            i_PHASESEL0=Const(0, 1),
            i_PHASESEL1=Const(0, 1),
            i_PHASEDIR=Const(0, 1),
            i_PHASESTEP=Const(0, 1),
            i_PHASELOADREG=Const(0, 1),
            i_PLLWAKESYNC=Const(0, 1),
            i_ENCLKOP=Const(0, 1),
            o_CLKOP=clock,
            o_LOCK=locked,
        )
        is_reset, stable = Signal(init=1), Signal(2)
        m.d.comb += [ClockSignal().eq(clock), ClockSignal("raw").eq(clock), ResetSignal().eq(is_reset)]
        m.d.raw += [stable.eq(Cat(locked, stable[0])), is_reset.eq(count != _RESET_CYCLES)]
        with m.If(~stable[1]):
            m.d.raw += count.eq(0)
        with m.Elif(count != _RESET_CYCLES):
            m.d.raw += count.eq(count + 1)
        return clock

    def _memory_pins(self, m: Module, sdram: Sdram, clock: Signal) -> None:
        pins, inner = self._pins, sdram.pins
        command = Value.cast(inner.command)
        m.d.comb += [
            pins["sdram_cke"].eq(1),
            pins["sdram_csn"].eq(0),
            Cat(pins["sdram_wen"], pins["sdram_casn"], pins["sdram_rasn"]).eq(command),
            pins["sdram_a"].eq(inner.a),
            pins["sdram_ba"].eq(inner.ba),
            pins["sdram_dqm"].eq(inner.dqm),
        ]
        # The chip's clock is inverted: what changes at a rising edge here is stable around its own.
        m.submodules.chip_clock = Instance(
            "ODDRX1F", i_D0=Const(0, 1), i_D1=Const(1, 1), i_SCLK=clock, i_RST=Const(0, 1), o_Q=pins["sdram_clk"]
        )
        for bit in range(len(self._data)):
            arrived = Signal(name=f"arrived_{bit}")
            m.submodules[f"data_{bit}"] = Instance(
                "TRELLIS_IO",
                p_DIR="BIDIR",
                io_B=self._data[bit],
                i_I=inner.dq_o[bit],
                i_T=~inner.dq_oe,
                o_O=arrived,
            )
            m.d.sync += inner.dq_i[bit].eq(arrived)

    def constraints(self) -> str:
        """The pins for the placer, in Lattice's preference format (LPF); the PLL's clock follows from the oscillator's."""
        lines = [
            "BLOCK RESETPATHS;",
            "BLOCK ASYNCPATHS;",
            f'FREQUENCY PORT "clk_25mhz" {OSCILLATOR_MHZ:g} MHZ;',
            "SYSCONFIG CONFIG_IOVOLTAGE=3.3 COMPRESS_CONFIG=ON MCCLK_FREQ=62 MASTER_SPI_PORT=ENABLE SLAVE_SPI_PORT=DISABLE "
            "SLAVE_PARALLEL_PORT=DISABLE;",
        ]
        for name, sites in SITES.items():
            for bit, site in enumerate(sites):
                port = f"{name}[{bit}]" if len(sites) > 1 else name
                pull, drive = ("UP", "") if name.startswith("ftdi") else ("NONE", " DRIVE=4")
                lines += [
                    f'LOCATE COMP "{port}" SITE "{site}";',
                    f'IOBUF PORT "{port}" PULLMODE={pull} IO_TYPE=LVCMOS33{"" if name in _INPUTS else drive};',
                ]
        return "\n".join(lines) + "\n"
