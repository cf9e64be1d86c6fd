"""The machines that come with fixgrad."""

from difflib import get_close_matches
from types import MappingProxyType

from fixgrad.errors import UsageError
from fixgrad.machine.parameters import Device, Machine, Memory

_GIB = 1 << 30

KCU1500 = Machine(
    name="kcu1500",
    board="Xilinx KCU1500 (the talk's)",
    groups=8,
    pes_per_group=4,
    lanes=32,
    clock_mhz=250.0,
    input_words=1024,
    lane_words=512,
    kernel_words=512,
    gradient_words=2048,
    param_words=128,
    post_processors=1,
    load_words=1,
    memory=Memory("ddr4_2400", channels=2, interleave=4096, port_bytes=64, bytes_total=8 * _GIB),
    device=Device("XCKU115", "BRAM36", blocks=2160, dsp=5520, lut=663_360, ff=1_326_720),
)

KCU1500_GRAPH = KCU1500.with_changes(
    name="kcu1500-graph",
    board="Xilinx KCU1500",
    param_words=256,  # networks with batch normalisation have many entries; those that do not fit are loaded one by one
    elementwise_lanes=32,
)

U280 = KCU1500.with_changes(
    name="u280",
    board="AMD Alveo U280 (HBM2)",
    groups=16,
    post_processors=4,
    load_words=2,
    param_words=256,
    elementwise_lanes=32,
    memory=Memory("hbm2", channels=8, interleave=4096, port_bytes=32, bytes_total=8 * _GIB),
    device=Device("XCU280", "BRAM36", blocks=2016, dsp=9024, lut=1_303_680, ff=2_607_360),
)

ECP5_85F = Machine(
    name="ecp5-85f",
    board="ULX3S with Lattice LFE5U-85F and SDRAM",
    groups=1,
    pes_per_group=1,
    lanes=8,
    clock_mhz=25.0,
    input_words=512,
    lane_words=512,
    kernel_words=128,
    gradient_words=512,
    param_words=64,
    post_processors=1,
    load_words=1,
    memory=Memory("sdr_133", channels=1, interleave=4096, port_bytes=8, bytes_total=32 << 20),
    device=Device("LFE5U-85F", "DP16KD", blocks=208, dsp=156, lut=83_640, ff=83_640),
)

TINY = Machine(
    name="tiny",
    board="for tests",
    groups=2,
    pes_per_group=2,
    lanes=4,
    clock_mhz=100.0,
    input_words=256,
    lane_words=128,
    kernel_words=64,
    gradient_words=256,
    param_words=64,
    post_processors=1,
    load_words=1,
    memory=Memory("ddr4_2400", channels=1, interleave=4096, port_bytes=16, bytes_total=64 << 20),
    device=Device("none", "BRAM36", blocks=0, dsp=0, lut=0, ff=0),
)

TINY_GRAPH = TINY.with_changes(name="tiny-graph", board="for tests", elementwise_lanes=2)

FORMAL = TINY.with_changes(
    name="formal",
    board="for model checking",
    groups=1,
    pes_per_group=1,
    lanes=1,
    input_words=16,
    lane_words=16,
    kernel_words=16,
    gradient_words=32,
    param_words=8,
)

_ALL = (KCU1500, TINY, FORMAL, ECP5_85F, U280, KCU1500_GRAPH, TINY_GRAPH)
PRESETS = MappingProxyType({machine.name: machine for machine in _ALL})


def preset(name: str) -> Machine:
    """The preset of that name; raises UsageError with the names that exist."""
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"machine {name!r} is unknown: {hint}choose {', '.join(PRESETS)}, or a JSON file of your own")
    return PRESETS[name]
