"""The instructions of a program while it is being written.

A large network has hundreds of thousands of instructions, most of which repeat an earlier one but for their waits and a few
fields. So an instruction is a *template* (encoded once) and what differs; the bytes are put together at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import encode_columns, merge_column
from fixgrad.compiler.resources import Waits
from fixgrad.machine.instructions import BY_NAME, INSTRUCTION_BYTES, Unit

Ints = NDArray[np.int64]
_WAITS = ("wait_load", "wait_compute", "wait_post", "wait_update")


class Label(NamedTuple):
    """What an instruction works on. `phase` is ``ff``, ``ng``, ``wg``, ``loss``, ``update`` or ``step``."""

    layer: str
    phase: str


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """Some consecutive instructions of one kind with everything but their waits, and but what each use adds.

    Attributes:
        name: of the kind.
        unit: that takes them.
        number: of the template in its stream.
        count: instructions.
        label: of all of them.
    """

    name: str
    unit: Unit
    number: int
    count: int
    label: Label


@dataclass(slots=True)
class InstructionStream:
    """Instructions in program order, and what only the timing model needs to know of them.

    Attributes:
        kernel_counts: of each COMPUTE, the kernels that each PE takes, [groups, pes].
        taps: of each COMPUTE, the cycles that a kernel takes each PE, [pes].
    """

    kernel_counts: list[Ints] = field(default_factory=list)
    taps: list[tuple[int, ...]] = field(default_factory=list)
    _templates: list[Template] = field(default_factory=list)
    _columns: dict[str, list[tuple[list[int], Mapping[str, Ints]]]] = field(default_factory=dict)
    _rows: dict[str, list[tuple[int, Mapping[str, int]]]] = field(default_factory=dict)
    _uses: list[int] = field(default_factory=list)
    _waits: list[Waits] = field(default_factory=list)
    _added: dict[str, list[tuple[int, Mapping[str, int]]]] = field(default_factory=dict)
    _issued: dict[Unit, int] = field(default_factory=lambda: dict.fromkeys(Unit, 0))

    def template(self, name: str, label: Label, layer: int, fields: Mapping[str, int]) -> Template:
        """One instruction that will be emitted once or more."""
        made = self._new(name, label, 1)
        self._rows.setdefault(name, []).append((made.number, {**fields, "layer": layer}))
        return made

    def templates(
        self, name: str, label: Label, layer: int, columns: Mapping[str, Ints], counts: Sequence[int]
    ) -> list[Template]:
        """Several templates at once, of `counts` instructions each, from columns of all of them."""
        made = [self._new(name, label, count) for count in counts]
        full = {**columns, "layer": np.full(sum(counts), layer)}
        self._columns.setdefault(name, []).append(([template.number for template in made], full))
        return made

    def _new(self, name: str, label: Label, count: int) -> Template:
        made = Template(name, BY_NAME[name].unit, len(self._templates), count, label)
        self._templates.append(made)
        return made

    def use(self, template: Template, waits: Waits, added: Mapping[str, int] | None = None) -> int:
        """Append the instructions of a template.

        Args:
            waits: of all of them.
            added: fields that the template left at 0, for a template of one instruction.

        Returns:
            The number of the last of them in its unit, from 1: what others wait for.
        """
        if added:
            self._added.setdefault(template.name, []).append((len(self._uses), added))
        self._uses.append(template.number)
        self._waits.append(waits)
        self._issued[template.unit] += template.count
        return self._issued[template.unit]

    def emit(self, name: str, label: Label, layer: int, waits: Waits, fields: Mapping[str, int]) -> int:
        """Append one instruction that is like no other; returns its number in its unit, from 1."""
        return self.use(self.template(name, label, layer, fields), waits)

    def issued(self, unit: Unit) -> int:
        """Instructions of a unit so far."""
        return self._issued[unit]

    def encode(self) -> NDArray[np.uint8]:
        """The program's bytes, [instructions, 128]."""
        sizes = np.array([template.count for template in self._templates])
        places = np.cumsum(sizes) - sizes
        counts = sizes[self._uses]
        starts = np.cumsum(counts) - counts
        rows = np.repeat(places[self._uses] - starts, counts) + np.arange(counts.sum())
        encoded: NDArray[np.uint8] = self._encode_templates(sizes, places)[rows]
        waits = np.repeat(np.array(self._waits, np.int64).reshape(-1, len(_WAITS)), counts, axis=0)
        for number, name in enumerate(_WAITS):
            merge_column("HALT", name, encoded, slice(None), waits[:, number])
        for name, uses in self._added.items():
            positions = starts[[use for use, _ in uses]]
            for item in {key for _, added in uses for key in added}:
                values = np.fromiter((added.get(item, 0) for _, added in uses), np.int64, len(uses))
                merge_column(name, item, encoded, positions, values)
        return encoded

    def _encode_templates(self, sizes: Ints, places: Ints) -> NDArray[np.uint8]:
        encoded = np.zeros((int(sizes.sum()), INSTRUCTION_BYTES), np.uint8)
        for name, rows in self._rows.items():
            single = {
                item: np.fromiter((fields.get(item, 0) for _, fields in rows), np.int64, len(rows))
                for item in {key for _, fields in rows for key in fields}
            }
            encoded[places[[number for number, _ in rows]]] = encode_columns(name, single, len(rows))
        for name, batches in self._columns.items():
            for numbers, columns in batches:
                first = places[numbers[0]]
                count = int(sizes[numbers].sum())
                encoded[first : first + count] = encode_columns(name, columns, count)
        return encoded

    def labels(self) -> tuple[Label, ...]:
        """The label of each instruction."""
        templates = self._templates
        return tuple(templates[use].label for use in self._uses for _ in range(templates[use].count))
