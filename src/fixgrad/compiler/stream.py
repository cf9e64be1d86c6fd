"""The instructions of a program while it is being written.

A large network has millions of instructions, most of which repeat an earlier one but for their waits and a few fields. So an
instruction is a *template* (kept once) and what differs; `ComposedCode` puts them together.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.code import ComposedCode
from fixgrad.compiler.resources import Waits
from fixgrad.machine.instructions import BY_NAME, Unit

Ints = NDArray[np.int64]
#: Types of stored fields, the narrowest first, and the highest value of each.
_WIDTHS = tuple((width, int(np.iinfo(width).max)) for width in (np.int8, np.int16, np.int32))


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
class _Added:
    """What uses add to fields that their templates leave at 0: the numbers of the uses, and their values one after the other."""

    uses: "array[int]" = field(default_factory=lambda: array("i"))
    values: "array[int]" = field(default_factory=lambda: array("q"))


class _Columns(NamedTuple):
    """Templates that were made together, and the fields of their instructions."""

    numbers: range
    fields: Mapping[str, NDArray[Any]]


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
    _columns: dict[str, list[_Columns]] = field(default_factory=dict)
    _rows: dict[str, list[tuple[int, Mapping[str, int]]]] = field(default_factory=dict)
    _uses: "array[int]" = field(default_factory=lambda: array("i"))
    _waits: "array[int]" = field(default_factory=lambda: array("i"))
    _added: dict[str, dict[tuple[str, ...], _Added]] = field(default_factory=dict)
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
        first = len(self._templates)
        made = [self._new(name, label, count) for count in counts]
        full = {**columns, "layer": np.full(sum(counts), layer)}
        stored = {item: _narrow(values) for item, values in full.items()}
        self._columns.setdefault(name, []).append(_Columns(range(first, first + len(made)), stored))
        return made

    def _new(self, name: str, label: Label, count: int) -> Template:
        made = Template(name, BY_NAME[name].unit, len(self._templates), count, label)
        self._templates.append(made)
        return made

    def use(self, template: Template, waits: Waits, added: Mapping[str, int] | None = None) -> int:
        """Append the instructions of a template.

        Args:
            waits: of all of them.
            added: fields of all of them that the template left at 0.

        Returns:
            The number of the last of them in its unit, from 1: what others wait for.
        """
        if added:
            kinds = self._added.setdefault(template.name, {})
            names = tuple(added)
            found = kinds.get(names)
            if found is None:
                found = kinds[names] = _Added()
            found.uses.append(len(self._uses))
            found.values.extend(added.values())
        self._uses.append(template.number)
        self._waits.extend(waits)
        self._issued[template.unit] += template.count
        return self._issued[template.unit]

    def emit(self, name: str, label: Label, layer: int, waits: Waits, fields: Mapping[str, int]) -> int:
        """Append one instruction that is like no other; returns its number in its unit, from 1."""
        return self.use(self.template(name, label, layer, fields), waits)

    def issued(self, unit: Unit) -> int:
        """Instructions of a unit so far."""
        return self._issued[unit]

    def code(self) -> ComposedCode:
        """What has been written.

        Raises:
            InstructionError: a value does not fit its field.
        """
        templates, places, fields = self._templates, np.zeros(len(self._templates), np.int64), {}
        sizes = np.array([template.count for template in templates], np.int64)
        for name in {**self._rows, **self._columns}:
            fields[name] = self._joined(name, sizes, places)
        added: dict[str, list[tuple[str, NDArray[np.int32], Ints]]] = {}
        for name, kinds in self._added.items():
            for names, items in kinds.items():
                uses, values = np.array(items.uses, np.int32), np.array(items.values, np.int64).reshape(-1, len(names))
                added.setdefault(name, []).extend((item, uses, values[:, place]) for place, item in enumerate(names))
        return ComposedCode(
            np.array([BY_NAME[template.name].opcode for template in templates], np.uint8),
            sizes,
            places,
            fields,
            np.array(self._uses, np.int32),
            np.array(self._waits, np.int32).reshape(-1, len(Waits._fields)),
            added,
        )

    def _joined(self, name: str, sizes: Ints, places: Ints) -> dict[str, NDArray[Any]]:
        """The fields of all templates of a kind, one behind the other, whose places are noted in `places`."""
        rows, batches = self._rows.get(name, []), self._columns.get(name, [])
        places[[number for number, _ in rows]] = np.arange(len(rows))
        at, parts = len(rows), list[tuple[int, Mapping[str, NDArray[Any]]]]()
        if rows:
            names = {item for _, fields in rows for item in fields}
            single = {item: np.fromiter((fields.get(item, 0) for _, fields in rows), np.int64, len(rows)) for item in names}
            parts.append((len(rows), single))
        for numbers, columns in batches:
            counts = sizes[numbers.start : numbers.stop]
            places[numbers.start : numbers.stop] = at + np.cumsum(counts) - counts
            parts.append((int(counts.sum()), columns))
            at += int(counts.sum())
        wanted = {item for _, columns in parts for item in columns}
        return {
            item: np.concatenate([columns.get(item, np.zeros(count, np.int8)) for count, columns in parts]) for item in wanted
        }

    def labels(self) -> tuple[Label, ...]:
        """The label of each instruction."""
        used = [self._templates[number] for number in self._uses]
        return tuple(chain.from_iterable(repeat(template.label, template.count) for template in used))


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """The values in the narrowest type that holds them."""
    if not values.size:
        return values.astype(np.int8)
    low, high = int(values.min()), int(values.max())
    for width, highest in _WIDTHS:
        if -highest <= low and high <= highest:
            return values.astype(width)
    return values
