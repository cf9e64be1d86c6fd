"""What a decoder checks of an instruction's fields: that the group, the PE and the memory entries exist on its machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth.hdl import Value
from amaranth.lib import data

from fixgrad.gateware.pe.shape import MAX_RUNS
from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, NORMALISE_EVALUATION
from fixgrad.machine.encoding import layout
from fixgrad.machine.instructions import BY_NAME, kinds_of

#: Range registers: as many as the field `statistics` can name.
RANGE_REGISTERS = 1 << layout("POST")["statistics"].field.bits
#: Value of the field `pe` that means all PEs of a group.
ALL_PES = 7
#: The last of COMPUTE's modes. Bytes of stored weights and momenta.
_WG, _CODE_BYTES = 2, (2, 4)
#: Bits of the widest codes, and elements of a channel of NORMALISE.
CODE_BITS, LARGEST_COUNT = 16, 1 << 24


@dataclass(frozen=True, slots=True)
class Check:
    """The sum of some fields is at most a limit plus other fields, unless one field has a certain value.

    Attributes:
        terms: fields that are added.
        limit: what their sum may not exceed.
        plus: fields that are added to the limit.
        unless: (field, value) with which the check does not apply.
    """

    terms: tuple[str, ...]
    limit: int
    plus: tuple[str, ...] = ()
    unless: tuple[str, int] | None = None

    def holds(self, fields: Mapping[str, int]) -> bool:
        """Whether an instruction with these fields passes."""
        if self.unless and fields[self.unless[0]] == self.unless[1]:
            return True
        return sum(fields[name] for name in self.terms) <= self.limit + sum(fields[name] for name in self.plus)

    def gates(self, fields: data.View) -> Value:
        """The same in hardware."""
        left, right = Value.cast(0), Value.cast(self.limit)
        for name in self.terms:
            left = left + fields[name]
        for name in self.plus:
            right = right + fields[name]
        holds: Value = left <= right
        return holds | (fields[self.unless[0]] == self.unless[1]) if self.unless else holds


def _entry(name: str, entries: int) -> Check:
    """A field is the number of one of `entries` entries."""
    return Check((name,), entries - 1)


def _between(name: str, least: int, most: int | None) -> tuple[Check, ...]:
    """A field of an UPDATE that has anything to do lies between two values."""
    low = Check((), -least, plus=(name,), unless=("count", 0))
    return (low,) if most is None else (low, Check((name,), most, unless=("count", 0)))


def _at_least(name: str, least: int, unless: tuple[str, int] | None = None) -> Check:
    return Check((), -least, plus=(name,), unless=unless)


def _elementwise() -> dict[str, tuple[Check, ...]]:
    """Windows that have taps and move on, codes that fit a post-processor, sums and means of something."""
    window = (f"{what}_{axis}" for what in ("kernel", "stride") for axis in ("rows", "columns"))
    return {
        "ELEMENTWISE": (
            Check(("operands",), 2),
            Check(("combine",), ERRORS_OF_MAXIMA),
            *(_at_least(name, 1, unless=("operands", 0)) for name in window),
            _at_least("out_bits", 2),
            Check(("out_bits",), CODE_BITS),
        ),
        "CHANNEL_SUMS": tuple(_at_least(name, 1) for name in ("micro_batches", "pixels")),
        "NORMALISE": (Check(("mode",), NORMALISE_EVALUATION), _at_least("count", 1), Check(("count",), LARGEST_COUNT)),
    }


def _runs(axis: str) -> Check:
    """The plan of a walk has room for its runs of pixels; see `fixgrad.gateware.pe.axis_planner` for how many there are."""
    kernel = f"kernel_{axis}"
    return Check((kernel, kernel, f"stride_{axis}"), MAX_RUNS, unless=("count_padding", 0))


def checks(machine: Machine) -> dict[str, tuple[Check, ...]]:
    """Kind of instruction -> what is checked of it."""
    every_kind = {
        "group": (_entry("group", machine.groups),),
        "pe": (Check(("pe",), machine.pes_per_group - 1, unless=("pe", ALL_PES)),),
        "param": (_entry("param", machine.param_words),),
        "images": (Check(("images",), machine.lanes),),
        "buffer": (_entry("buffer", machine.input_words),),
        "lane_base": (_entry("lane_base", machine.lane_words),),
        "gradient_base": (_entry("gradient_base", machine.gradient_words),),
    }
    particular = {
        "LOAD_PARAMS": (Check(("first", "count"), machine.param_words),),
        "STATISTICS": (Check(("count",), RANGE_REGISTERS),),
        "COMPUTE": (Check(("mode",), _WG), *(_runs(axis) for axis in ("rows", "columns"))),
        "UPDATE": (
            Check(("gradient_base", "count"), machine.gradient_words, unless=("from_memory", 1)),
            *_between("taps", 1, None),
            *_between("stored_bytes", *_CODE_BYTES),
            *_between("momentum_bytes", *_CODE_BYTES),
        ),
        **_elementwise(),
    }
    found: dict[str, tuple[Check, ...]] = {}
    for kind in kinds_of(machine):
        names = {field.name for field in BY_NAME[kind.name].fields}
        mine = [check for name, of in every_kind.items() if name in names for check in of]
        for pe in range(machine.pes_per_group):
            for prefix in ("in", "out"):
                for low, high in (("top", "bottom"), ("left", "right")):
                    if f"{prefix}{pe}_{low}" in names:
                        mine.append(Check((f"{prefix}{pe}_{low}",), 0, plus=(f"{prefix}{pe}_{high}",)))
        found[kind.name] = (*mine, *particular.get(kind.name, ()))
    return found
