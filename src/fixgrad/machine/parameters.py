"""What an accelerator is: one immutable, validated object from which compiler, simulators and gateware take every size."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, get_type_hints

from fixgrad.errors import UsageError

#: Taps that one kernel word of a PE's kernel queue holds: a 3x3 kernel.
TAPS_PER_WORD = 9
#: Groups that take turns at a lane of UPDATE. Two: a lane is idle most of the time, and costs as much as four PEs without memories.
GROUPS_PER_UPDATE_LANE = 2
#: The widest group: instructions carry the rectangles of this many PEs.
MAX_PES_PER_GROUP = 4


def _check_integers(of: Any, prefix: str, bounds: Mapping[str, tuple[int, int]]) -> None:
    for name, (low, high) in bounds.items():
        value = getattr(of, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{prefix}{name} is {value!r}: choose {low} to {high}")


@dataclass(frozen=True, slots=True)
class Memory:
    """The external memory.

    Attributes:
        standard: name of a timing table of `fixgrad.simulate.dram`.
        channels: independent channels.
        interleave: bytes after which addresses move on to the next channel, a power of two.
        port_bytes: bytes that one channel's AXI port moves in a cycle.
        bytes_total: capacity of all channels together.
    """

    standard: str
    channels: int
    interleave: int
    port_bytes: int
    bytes_total: int

    def __post_init__(self) -> None:
        bounds = {"channels": (1, 64), "port_bytes": (1, 128), "interleave": (64, 1 << 30), "bytes_total": (1 << 10, 1 << 40)}
        _check_integers(self, "memory.", bounds)
        for name in ("port_bytes", "interleave"):
            value = getattr(self, name)
            if value & (value - 1):
                raise UsageError(f"memory.{name} is {value}: choose a power of two")


@dataclass(frozen=True, slots=True)
class Device:
    """What the board's chip offers; zero where it has none.

    `block_kind` names the block memory of `fixgrad.machine.memory_blocks`, `blocks` how many there are.
    """

    part: str
    block_kind: str
    blocks: int
    dsp: int
    lut: int
    ff: int

    def __post_init__(self) -> None:
        _check_integers(self, "device.", dict.fromkeys(("blocks", "dsp", "lut", "ff"), (0, 1 << 30)))


@dataclass(frozen=True, slots=True)
class Latencies:
    """Fixed pipeline latencies in cycles, the same in the timing simulator and in the gateware.

    Attributes:
        dispatch: from the fetch of an instruction until its unit may begin.
        compute: from the first operand read of a COMPUTE until its last accumulator is written.
        post: from an accumulator's read until its word leaves the post-processor.
        update: from a gradient's read until its weight leaves the update unit.
        loss_per_class: cycles of the loss unit for one class of one image (table, sum, division).
        normalise, normalise_errors: cycles of the elementwise unit for the scalars of one channel in FF (six divisions and a
            root) and in NG (three divisions).
    """

    dispatch: int = 4
    compute: int = 8
    post: int = 8
    update: int = 10
    loss_per_class: int = 20
    normalise: int = 227
    normalise_errors: int = 140

    def __post_init__(self) -> None:
        _check_integers(self, "latencies.", {field.name: (1, 1000) for field in fields(self)})


@dataclass(frozen=True, slots=True)
class Machine:
    """An accelerator.

    Attributes:
        name: of the preset or the user's own.
        groups: PE groups; the groups work on different output channels.
        pes_per_group: 1, 2 or 4; the PEs of a group work on different pixels of one channel, or on different channels.
        lanes: MACs of a PE; each holds one image of the batch.
        clock_mhz: clock of everything but the memory.
        input_words: words of a PE's input buffer; a word is one pixel of one channel for all lanes, `lanes` bytes.
        lane_words: words of a lane's 32-bit memory: accumulators in FF and NG, errors in WG. Two halves take turns.
        kernel_words: entries of a PE's kernel queue: a coordinate pair and 9 weights each.
        gradient_words: 32-bit words of a PE's gradient memory. Two halves take turns.
        param_words: entries of 64 bytes in the step-table memory.
        post_processors: each serves groups / post_processors groups and moves one word of all lanes in a cycle.
        load_words: input words that the load unit distributes in a cycle.
        elementwise_lanes: lanes of a word that the elementwise unit takes in a cycle, a divisor of `lanes`; 0: no such unit,
            and the machine computes chains of layers only.
        memory, device, latencies: see there.
        board: name for people.

    Raises:
        UsageError: a parameter out of range, or a set that does not fit together; the message names it.
    """

    name: str
    groups: int
    pes_per_group: int
    lanes: int
    clock_mhz: float
    input_words: int
    lane_words: int
    kernel_words: int
    gradient_words: int
    param_words: int
    post_processors: int
    load_words: int
    memory: Memory
    device: Device
    board: str
    latencies: Latencies = Latencies()
    elementwise_lanes: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "groups": (1, 64),
            "pes_per_group": (1, MAX_PES_PER_GROUP),
            "lanes": (1, 64),
            "input_words": (16, 1 << 14),
            "lane_words": (16, 1 << 12),
            "kernel_words": (16, 1 << 12),
            "gradient_words": (32, 1 << 14),
            "param_words": (8, 1 << 10),
            "post_processors": (1, 16),
            "load_words": (1, 4),
            "elementwise_lanes": (0, 64),
        }
        _check_integers(self, f"machine {self.name}: ", bounds)
        for name in ("lane_words", "gradient_words"):
            if getattr(self, name) % 2:
                raise UsageError(f"machine {self.name}: {name} is {getattr(self, name)}: choose an even number, for two halves")
        if self.pes_per_group == 3:
            raise UsageError(f"machine {self.name}: pes_per_group is 3: choose 1, 2 or 4, which split a rectangle evenly")
        if self.groups % self.post_processors:
            raise UsageError(
                f"machine {self.name}: {self.groups} groups do not divide among {self.post_processors} post-processors: "
                f"choose a divisor of {self.groups}"
            )
        if self.elementwise_lanes and self.lanes % self.elementwise_lanes:
            raise UsageError(
                f"machine {self.name}: elementwise_lanes is {self.elementwise_lanes}: choose 0 or a divisor of {self.lanes} lanes"
            )
        if not (math.isfinite(self.clock_mhz) and 1 <= self.clock_mhz <= 1000):
            raise UsageError(f"machine {self.name}: clock_mhz is {self.clock_mhz}: choose 1 to 1000")

    @property
    def pes(self) -> int:
        """All processing elements."""
        return self.groups * self.pes_per_group

    @property
    def update_lanes(self) -> int:
        """Lanes of UPDATE: group g is served by lane g // `GROUPS_PER_UPDATE_LANE`."""
        return -(-self.groups // GROUPS_PER_UPDATE_LANE)

    @property
    def macs(self) -> int:
        """Multipliers: multiply-accumulates of one cycle."""
        return self.pes * self.lanes

    @property
    def peak_gops(self) -> float:
        """Dense peak in GOP/s; 1 MAC is 2 operations."""
        return 2 * self.macs * self.clock_mhz / 1000

    @property
    def half_lane_words(self) -> int:
        """Accumulators of a PE that one tile may use (the other half is being drained)."""
        return self.lane_words // 2

    @property
    def half_gradient_words(self) -> int:
        """Gradients of a PE that one tile may use."""
        return self.gradient_words // 2

    def microseconds(self, cycles: float) -> float:
        """Cycles as time."""
        return cycles / self.clock_mhz

    def with_changes(self, **changes: Any) -> "Machine":
        """A copy with some parameters changed, validated again."""
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            names = ", ".join(field.name for field in fields(self))
            raise UsageError(f"machine {self.name} has no parameter {unknown[0]!r}: it has {names}")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values. A machine without an elementwise unit has none of its parameters."""
        values = asdict(self)
        if not self.elementwise_lanes:
            del values["elementwise_lanes"]
            del values["latencies"]["normalise"], values["latencies"]["normalise_errors"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Machine":
        """The machine that `to_dict` wrote.

        Raises:
            UsageError: a parameter that is missing, unknown, of a wrong type or out of range; the message names it.
        """
        machine = _built(cls, values, "")
        assert isinstance(machine, cls)
        return machine

    def digest(self) -> str:
        """Hash of everything that a program depends on, 16 hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _built(cls: type, values: object, prefix: str) -> Any:
    """An object of a dataclass from JSON values, each field checked against its annotation; `prefix` is for messages."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{prefix.rstrip('.') or 'the machine'} is {values!r}: give an object of parameters")
    hints = get_type_hints(cls)
    unknown = [name for name in values if name not in hints]
    if unknown:
        known = ", ".join(prefix + name for name in hints)
        raise UsageError(f"{prefix}{unknown[0]} is no parameter of a machine: choose {known}")
    missing = [f.name for f in fields(cls) if f.name not in values and f.default is MISSING]
    if missing:
        raise UsageError(f"{prefix}{missing[0]} is missing: give {_WORDS.get(hints[missing[0]], 'an object')}")
    return cls(**{name: _value(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


_WORDS: dict[type, str] = {int: "an integer", float: "a number", str: "a text"}


def _value(kind: type, value: object, name: str) -> object:
    if kind not in _WORDS:
        return _built(kind, value, f"{name}.")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{name} is {value!r}: give {_WORDS[kind]}")
    return value
