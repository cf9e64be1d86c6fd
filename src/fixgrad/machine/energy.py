"""Energy of a training step: MAC, buffers, DRAM, logic and static, each with an interval.

    MAC      operations x (int8 multiply + int32 add of Horowitz) x gap of an FPGA over an ASIC x process
    buffers  bits x SRAM energy of Horowitz for that size x gap of block RAM x process
    DRAM     bits x (burst + I/O) + row misses x activate + channels x background x time
    logic    LUTs x cycles x (clocking + toggling x share of the MAC slots in use), post-processing and updates
    static   watts x time

The talk's board (29 W at 1,030 DSP, 1,060 BRAM36, 199 k LUT, 250 MHz, 2x DDR4; 1.33 J a step) fixes the two coefficients of
the logic (`board_calibration`); the others are published, simulated or assumed bounds (`data/energy.toml`). Whether the
29 W are the chip's or the board's the talk does not say; they are taken as the board's, DRAM included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import exp, log

from fixgrad.errors import UsageError
from fixgrad.machine.energy_calibration import Calibration, Unknown, calibrate
from fixgrad.machine.energy_data import NOTHING, EnergyTable, Interval, load_energy_table

_PJ = 1e-12
_DRAM_FAMILIES = {"ddr4": "ddr4", "hbm2": "hbm2", "sdr": "sdr"}
_POST_ADDS = 3
"""A post-processed word: bias, rounding, and the comparison of ReLU or pooling, an int32 add each."""
_UPDATE_MULTIPLIES, _UPDATE_ADDS = 1, 3
"""An updated weight: momentum times a constant; three additions."""
_ELEMENTWISE_MULTIPLIES, _ELEMENTWISE_ADDS = 2, 4
"""An element of the elementwise unit: two products, their sum and the offset, two roundings."""


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What a step does.

    Attributes:
        macs: multiply-accumulates executed (skipped ones cost nothing).
        buffer_bits: bits read or written in on-chip buffers, by the size of the buffer in bytes.
        dram_bytes: bytes moved to and from DRAM, all channels.
        dram_row_misses: rows opened for them, all channels (random bursts of 64 bytes open one each).
        post_ops: words post-processed.
        update_ops: weights updated.
        elementwise_ops: elements that went through the elementwise unit.
    """

    macs: int
    buffer_bits: Mapping[int, int] = field(default_factory=dict)
    dram_bytes: int = 0
    dram_row_misses: int = 0
    post_ops: int = 0
    update_ops: int = 0
    elementwise_ops: int = 0

    def __post_init__(self) -> None:
        for name in ("macs", "dram_bytes", "dram_row_misses", "post_ops", "update_ops", "elementwise_ops"):
            if getattr(self, name) < 0:
                raise UsageError(f"energy: {name} is {getattr(self, name)}; it must not be negative")
        for size, bits in self.buffer_bits.items():
            if size < 1 or bits < 0:
                raise UsageError(f"energy: {bits} bits in a buffer of {size} bytes; sizes must be positive")


@dataclass(frozen=True, slots=True)
class Design:
    """What the energy model must know of an accelerator: chip, LUTs in use, MAC units, clock, memory."""

    part: str
    luts: int
    mac_units: int
    clock_mhz: float
    dram_standard: str
    dram_channels: int

    def __post_init__(self) -> None:
        for name in ("luts", "mac_units", "clock_mhz", "dram_channels"):
            if getattr(self, name) <= 0:
                raise UsageError(f"energy: {name} of {self.part} is {getattr(self, name)}; it must be positive")


@dataclass(frozen=True, slots=True)
class StepEnergy:
    """Joules of a step by part. `total` can be narrower than the sum of the parts: they are known together better."""

    mac: Interval
    buffers: Interval
    dram: Interval
    logic: Interval
    static: Interval
    total: Interval
    seconds: float

    @property
    def watts(self) -> Interval:
        return self.total * (1 / self.seconds)

    def per_image(self, batch: int) -> Interval:
        """Joules of one of `batch` images."""
        return self.total * (1 / batch)


def sram_bit_pj(size_bytes: int, table: EnergyTable | None = None) -> float:
    """Energy of reading a bit from an SRAM in pJ: Horowitz's three sizes, between them a power law.

    Below 8 KB it stays at the value of 8 KB, above 1 MB it goes on with the last slope.
    """
    table = table or load_energy_table()
    points = [(8192, "8KB"), (32768, "32KB"), (1 << 20, "1MB")]
    known = [(log(size), log(table[f"sram_64bit_read_{name}"].value / 64)) for size, name in points]
    x = max(log(size_bytes), known[0][0])
    (x0, y0), (x1, y1) = known[:2] if x <= known[1][0] else known[1:]
    return exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))


def mac_joules(part: str, table: EnergyTable | None = None) -> Interval:
    """One 8-bit multiply with a 32-bit accumulation in the DSP slices of `part`."""
    table = table or load_energy_table()
    return (table["int8_multiply"] + table["int32_add"]) * table["mac_gap"] * _process(part, table) * _PJ


def _process(part: str, table: EnergyTable) -> Interval:
    if part not in table.parts:
        raise UsageError(f"no energy coefficients for the chip {part!r}; known are {', '.join(table.parts)}")
    return table[f"process_{part}"]


def dram_joules(
    standard: str, bytes_moved: float, row_misses: float, channels: int, seconds: float, table: EnergyTable | None = None
) -> Interval:
    """DRAM, its I/O and its background power for a step of `seconds`. Raises UsageError for an unknown standard."""
    table = table or load_energy_table()
    family = _DRAM_FAMILIES.get(standard.split("_")[0])
    if family is None:
        raise UsageError(f"no energy coefficients for the DRAM {standard!r}; known are {', '.join(_DRAM_FAMILIES)}")

    def coefficient(name: str) -> Interval:
        full = f"{family}_{name}"
        return table[full] if full in table.coefficients else NOTHING

    moved = (coefficient("burst") + coefficient("io")) * (8 * bytes_moved * _PJ)
    opened = coefficient("activate") * (row_misses * _PJ)
    return moved + opened + coefficient("background") * (channels * seconds)


def _anchor_dram(table: EnergyTable) -> Interval:
    """Energy of the anchor's DRAM traffic, whose volume is known between two bounds only."""
    a = table.anchor
    middle = (a.dram_bytes_low + a.dram_bytes_high) / 2
    least, some, most = (
        dram_joules(a.dram_standard, volume, volume / 8192, a.dram_channels, a.seconds, table)
        for volume in (a.dram_bytes_low, middle, a.dram_bytes_high)
    )
    return Interval(some.value, least.low, most.high)


@cache
def board_calibration() -> Calibration:
    """The talk's board: unknowns, what its 29 W fix, and the intervals that are left."""
    return calibration_of(load_energy_table())


def calibration_of(table: EnergyTable) -> Calibration:
    """`board_calibration` of another table."""
    a = table.anchor
    cycles = a.seconds * a.clock_mhz * 1e6
    buffer_bit = sram_bit_pj(a.buffer_bytes, table) * _PJ
    share = table["clock_share"]
    known = {
        "static": Unknown(table[f"static_{a.part}"], a.seconds),
        "mac": Unknown(mac_joules(a.part, table), a.macs),
        "buffer_gap": Unknown(table["buffer_gap"] * _process(a.part, table), a.macs * a.buffer_bits_per_mac * buffer_bit),
        "dram": Unknown(_anchor_dram(table), 1.0),
    }
    toggling = Interval(1 - share.value, 1 - share.high, 1 - share.low)
    in_use = a.macs / (a.mac_units * cycles)
    rest = {
        "logic_clock": (share, a.luts * cycles),
        "logic_toggle": (toggling, a.luts * cycles * in_use),
    }
    return calibrate(a.joules, known, rest)


def energy_of_step(counts: StepCounts, design: Design, seconds: float, table: EnergyTable | None = None) -> StepEnergy:
    """Energy of a step that takes `seconds` on `design`.

    On the calibrated chip the total is bounded by all that is known together; on others the logic's coefficients are
    scaled by the process, and bounds add up. Raises UsageError for a chip or DRAM without coefficients, for no time at
    all, and for more MACs than the units can do in it.
    """
    table = table or load_energy_table()
    cycles = seconds * design.clock_mhz * 1e6
    if seconds <= 0 or counts.macs > design.mac_units * cycles * (1 + 1e-9):
        raise UsageError(f"energy: {counts.macs} MACs in {seconds} s do not fit {design.mac_units} units")
    calibration = board_calibration() if table is load_energy_table() else calibration_of(table)
    own = _own_terms(counts, design, seconds, table)
    quantities = _quantities(counts, design, cycles, seconds, table)
    if design.part == table.anchor.part:
        parts = {name: calibration.bounds({n: quantities[n] for n in names}) for name, names in _PARTS.items()}
        total = calibration.bounds(quantities) + own["dram"] + own["logic"]
    else:
        parts = _scaled(calibration, quantities, design.part, table)
        total = parts["mac"] + parts["buffers"] + parts["logic"] + parts["static"] + own["dram"] + own["logic"]
    return StepEnergy(
        parts["mac"], parts["buffers"], own["dram"], parts["logic"] + own["logic"], parts["static"], total, seconds
    )


_PARTS = {
    "mac": ("mac",),
    "buffers": ("buffer_gap",),
    "logic": ("logic_clock", "logic_toggle"),
    "static": ("static",),
}


def _quantities(counts: StepCounts, design: Design, cycles: float, seconds: float, table: EnergyTable) -> dict[str, float]:
    """Units of each unknown of the calibration in a step."""
    in_use = counts.macs / (design.mac_units * cycles)
    return {
        "static": seconds,
        "mac": counts.macs,
        "buffer_gap": sum(bits * sram_bit_pj(size, table) for size, bits in counts.buffer_bits.items()) * _PJ,
        "logic_clock": design.luts * cycles,
        "logic_toggle": design.luts * cycles * in_use,
    }


def _own_terms(counts: StepCounts, design: Design, seconds: float, table: EnergyTable) -> dict[str, Interval]:
    """Terms that the calibration does not touch: this step's DRAM, post-processing and updates."""
    add, multiply = table["int32_add"], table["int32_multiply"]
    gap = table["logic_gap"] * _process(design.part, table)
    post = add * (_POST_ADDS * counts.post_ops)
    update = (multiply * _UPDATE_MULTIPLIES + add * _UPDATE_ADDS) * counts.update_ops
    elementwise = (multiply * _ELEMENTWISE_MULTIPLIES + add * _ELEMENTWISE_ADDS) * counts.elementwise_ops
    dram = dram_joules(design.dram_standard, counts.dram_bytes, counts.dram_row_misses, design.dram_channels, seconds, table)
    return {"dram": dram, "logic": (post + update + elementwise) * gap * _PJ}


def _scaled(calibration: Calibration, quantities: Mapping[str, float], part: str, table: EnergyTable) -> dict[str, Interval]:
    """Parts on a chip that was not calibrated."""
    anchor, here = _process(table.anchor.part, table), _process(part, table)
    ratio = Interval(here.value / anchor.value, here.low / anchor.high, here.high / anchor.low)
    logic = NOTHING
    for name in _PARTS["logic"]:
        logic = logic + calibration.left[name] * quantities[name] * ratio
    return {
        "mac": mac_joules(part, table) * quantities["mac"],
        "buffers": table["buffer_gap"] * here * quantities["buffer_gap"],
        "logic": logic,
        "static": table[f"static_{part}"] * quantities["static"],
    }
