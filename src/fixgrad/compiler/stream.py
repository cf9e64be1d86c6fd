"""The instructions of a program while it is being written."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import encode_columns
from fixgrad.compiler.resources import Waits
from fixgrad.machine.encoding import layout
from fixgrad.machine.instructions import BY_NAME, INSTRUCTION_BYTES, Unit

Ints = NDArray[np.int64]


class Label(NamedTuple):
    """What an instruction works on. `phase` is ``ff``, ``ng``, ``wg``, ``loss``, ``update`` or ``step``."""

    layer: str
    phase: str


@dataclass(slots=True)
class InstructionStream:
    """Instructions in program order, and what only the timing model needs to know of them.

    Attributes:
        labels: of each instruction.
        kernel_counts: of each COMPUTE, the kernels that each PE takes, [groups, pes].
        taps: of each COMPUTE, the cycles that a kernel takes each PE, [pes].
    """

    labels: list[Label] = field(default_factory=list)
    kernel_counts: list[Ints] = field(default_factory=list)
    taps: list[tuple[int, ...]] = field(default_factory=list)
    _fields: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    _order: dict[str, list[int]] = field(default_factory=dict)
    _issued: dict[Unit, int] = field(default_factory=lambda: dict.fromkeys(Unit, 0))

    def emit(self, name: str, label: Label, layer: int, waits: Waits, fields: dict[str, int]) -> int:
        """Append an instruction; returns its number in its unit, from 1, which is what others wait for."""
        full = {
            **fields,
            "layer": layer,
            "wait_load": waits.load,
            "wait_compute": waits.compute,
            "wait_post": waits.post,
            "wait_update": waits.update,
        }
        self._fields.setdefault(name, []).append(full)
        self._order.setdefault(name, []).append(len(self.labels))
        self.labels.append(label)
        unit = BY_NAME[name].unit
        self._issued[unit] += 1
        return self._issued[unit]

    def issued(self, unit: Unit) -> int:
        """Instructions of a unit so far."""
        return self._issued[unit]

    def encode(self) -> NDArray[np.uint8]:
        """The program's bytes, [instructions, 128]."""
        encoded = np.zeros((len(self.labels), INSTRUCTION_BYTES), np.uint8)
        for name, records in self._fields.items():
            columns = {
                item: np.fromiter((record.get(item, 0) for record in records), np.int64, len(records))
                for item in layout(name)
                if item != "opcode"
            }
            encoded[self._order[name]] = encode_columns(name, columns, len(records))
        return encoded
