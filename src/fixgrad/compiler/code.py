"""The instructions of a program: as bytes, or as the templates of which the compiler has composed them.

A large network has millions of instructions of 128 bytes each. The compiler keeps them as it makes them, and the timing
simulator asks for columns of fields, a field at a time; the bytes are put together for those who want them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import Columns, check_column, decode_columns, encode_columns
from fixgrad.machine.encoding import layout
from fixgrad.machine.instructions import BY_NAME, INSTRUCTION_BYTES

Ints = NDArray[np.int64]
WAIT_FIELDS = ("wait_load", "wait_compute", "wait_post", "wait_update")
_OPCODES = {kind.opcode: kind.name for kind in BY_NAME.values()}


class Code(ABC):
    """The instructions of a program."""

    @property
    @abstractmethod
    def opcodes(self) -> NDArray[np.uint8]:
        """Opcode of each instruction."""

    @property
    @abstractmethod
    def encoded(self) -> NDArray[np.uint8]:
        """All bytes, [instructions, 128]."""

    @abstractmethod
    def columns(self, name: str) -> Columns:
        """All instructions of a kind at once: field name -> values, in program order."""

    @cached_property
    def positions(self) -> dict[str, Ints]:
        """Name of a kind -> positions of its instructions in program order."""
        return {name: np.flatnonzero(self.opcodes == kind.opcode) for name, kind in BY_NAME.items()}

    def __len__(self) -> int:
        return len(self.opcodes)


class EncodedCode(Code):
    """Instructions that are bytes already, uint8 [instructions, 128]."""

    def __init__(self, encoded: NDArray[np.uint8]) -> None:
        self._encoded = encoded

    @cached_property
    def opcodes(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._encoded[:, 0])

    @property
    def encoded(self) -> NDArray[np.uint8]:
        return self._encoded

    def columns(self, name: str) -> Columns:
        return decode_columns(name, self._encoded[self.positions[name]])


class ComposedCode(Code):
    """Instructions composed of templates.

    Args:
        opcodes, sizes: of each template: its kind, and how many instructions it is.
        places: of each template, the row of its first instruction in the fields of its kind.
        fields: by kind: field -> value of each instruction of its templates, one template behind the other; fields that are
            missing are 0.
        uses: numbers of the templates, in program order.
        waits: completed LOAD, COMPUTE, POST, UPDATE that all instructions of a use wait for, [uses, 4].
        added: by kind: fields that templates leave at 0: (name, uses [n], values [n]).

    Raises:
        InstructionError: a value does not fit its field.
    """

    def __init__(
        self,
        opcodes: NDArray[np.uint8],
        sizes: Ints,
        places: Ints,
        fields: Mapping[str, Mapping[str, NDArray[Any]]],
        uses: NDArray[np.int32],
        waits: NDArray[np.int32],
        added: Mapping[str, list[tuple[str, NDArray[np.int32], Ints]]],
    ) -> None:
        self._sizes, self._places, self._fields = sizes, places, fields
        self._uses, self._waits, self._added = uses, waits, added
        self._kinds = opcodes[uses]
        self._opcodes = np.repeat(self._kinds, sizes[uses])
        self._check()

    def _check(self) -> None:
        for number, name in enumerate(WAIT_FIELDS):
            check_column("HALT", name, self._waits[:, number])
        for kind, columns in self._fields.items():
            for name, values in columns.items():
                check_column(kind, name, values)
        for kind, items in self._added.items():
            for name, _, values in items:
                check_column(kind, name, values)

    @property
    def opcodes(self) -> NDArray[np.uint8]:
        return self._opcodes

    @cached_property
    def encoded(self) -> NDArray[np.uint8]:
        encoded = np.zeros((len(self), INSTRUCTION_BYTES), np.uint8)
        for name, at in self.positions.items():
            if len(at):
                encoded[at] = encode_columns(name, self.columns(name), len(at))
        return encoded

    def columns(self, name: str) -> Columns:
        return _LazyColumns(self, name)

    def column(self, kind: str, field: str) -> Ints:
        """One field of all instructions of a kind."""
        uses = np.flatnonzero(self._kinds == BY_NAME[kind].opcode)
        of = self._uses[uses]
        sizes = self._sizes[of]
        ends = np.cumsum(sizes)
        if field == "opcode":
            return np.full(int(sizes.sum()), BY_NAME[kind].opcode)
        if field in WAIT_FIELDS:
            return np.repeat(self._waits[uses, WAIT_FIELDS.index(field)].astype(np.int64), sizes)
        stored = self._fields.get(kind, {}).get(field)
        if stored is None:
            values = np.zeros(int(sizes.sum()), np.int64)
        else:
            rows = np.repeat(self._places[of] - (ends - sizes), sizes) + np.arange(int(sizes.sum()))
            values = stored[rows].astype(np.int64)
        for name, at, extra in self._added.get(kind, ()):
            if name == field:
                number = np.searchsorted(uses, at)
                rows = np.repeat(ends[number] - np.cumsum(sizes[number]), sizes[number]) + np.arange(int(sizes[number].sum()))
                values[rows] = np.repeat(extra, sizes[number])
        return values


class _LazyColumns(Mapping[str, Ints]):
    """The fields of a kind, each worked out when it is asked for."""

    def __init__(self, code: ComposedCode, kind: str) -> None:
        self._code, self._kind = code, kind

    def __getitem__(self, field: str) -> Ints:
        if field not in layout(self._kind):
            raise KeyError(field)
        return self._code.column(self._kind, field)

    def __iter__(self) -> Iterator[str]:
        return iter(layout(self._kind))

    def __len__(self) -> int:
        return len(layout(self._kind))
