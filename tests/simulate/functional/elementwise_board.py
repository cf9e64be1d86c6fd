"""A memory with maps in it, on which single instructions of the elementwise unit run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.step_entries import encode_entry
from fixgrad.machine import Instruction, Machine, preset
from fixgrad.machine.elementwise_instructions import RECORD, RECORD_BYTES
from fixgrad.simulate.functional import execute
from fixgrad.simulate.functional.chip import REGISTERS

Codes = NDArray[Any]
MACHINE = preset("tiny-graph")
_BYTES, _STATISTICS, _PARAMS = 1 << 20, 1 << 12, 64


class Board:
    """Memory of a machine; a map of a batch lies as [micro-batch][channel][row][column][lane].

    Attributes:
        image: the memory, changed in place.
        registers: what STATISTICS wrote after the last run: (OR of magnitudes, saturated) of each.
    """

    def __init__(self, batch: int, machine: Machine = MACHINE) -> None:
        self.machine, self.batch = machine, batch
        self.image = np.zeros(_BYTES, np.uint8)
        self.registers: list[tuple[int, int]] = []
        self._end = 1 << 14

    @property
    def micro_batches(self) -> int:
        return -(-self.batch // self.machine.lanes)

    def images(self, micro_batch: int) -> int:
        return min(self.machine.lanes, self.batch - micro_batch * self.machine.lanes)

    def allocate(self, size: int) -> int:
        start = self._end
        self._end += -(-size // 64) * 64
        assert self._end <= _BYTES
        return start

    def store(self, values: Codes, dtype: str) -> int:
        data = np.ascontiguousarray(values.astype(dtype)).view(np.uint8).reshape(-1)
        address = self.allocate(data.size)
        self.image[address : address + data.size] = data
        return address

    def integers(self, address: int, dtype: str, count: int) -> Codes:
        return self.image[address : address + count * np.dtype(dtype).itemsize].view(dtype).copy()

    def put_map(self, codes: Codes, dtype: str = "i1") -> int:
        """Codes [batch, channels, rows, columns]; lanes without an image are 0."""
        lanes = self.machine.lanes
        padded = np.zeros((self.micro_batches * lanes, *codes.shape[1:]), dtype)
        padded[: len(codes)] = codes
        return self.store(padded.reshape(self.micro_batches, lanes, *codes.shape[1:]).transpose(0, 2, 3, 4, 1), dtype)

    def get_map(self, address: int, shape: tuple[int, ...], dtype: str = "i1") -> Codes:
        lanes = self.machine.lanes
        stored = self.integers(address, dtype, self.micro_batches * lanes * int(np.prod(shape)))
        by_image = stored.reshape(self.micro_batches, *shape, lanes).transpose(0, 4, 1, 2, 3).reshape(-1, *shape)
        assert not by_image[self.batch :].any()
        return by_image[: self.batch]

    def put_records(self, channels: int, **fields: Codes) -> int:
        records = np.zeros((channels, RECORD_BYTES // 8), np.int64)
        for item in RECORD:
            records[:, item.offset // 8] = fields.get(item.name, 0)
        return self.store(records, "<i8")

    def get_record(self, address: int, channels: int, name: str) -> Codes:
        place = next(item.offset // 8 for item in RECORD if item.name == name)
        return self.integers(address, "<i8", channels * RECORD_BYTES // 8).reshape(channels, -1)[:, place]

    def run(self, entries: list[dict[str, int]], instructions: list[Instruction]) -> None:
        """Load step-table entries, execute, and store the range registers."""
        for number, values in enumerate(entries):
            self.image[_PARAMS + 64 * number : _PARAMS + 64 * (number + 1)] = encode_entry(values)
        loads = Instruction("LOAD_PARAMS", source=_PARAMS, count=len(entries))
        last = Instruction("STATISTICS", target=_STATISTICS, count=REGISTERS)
        execute(self.machine, self.image, [loads, *(item.replace(wait_load=1) for item in instructions), last, Instruction("HALT")])
        rows = self.integers(_STATISTICS, "<u4", 4 * REGISTERS).reshape(-1, 4)
        self.registers = [(int(row[0]), int(row[1])) for row in rows]

    def elementwise(self, sizes: dict[str, int], maps: dict[str, tuple[int, int, int]], **fields: int) -> list[Instruction]:
        """ELEMENTWISE for each micro-batch.

        Args:
            sizes: fields that are words of a whole micro-batch are taken from it: `channels`, `rows`, `columns` of the result.
            maps: field -> (address, words of a micro-batch, bytes of a code).
        """
        lanes = self.machine.lanes
        return [
            Instruction(
                "ELEMENTWISE",
                **{
                    **sizes,
                    **{name: address + number * words * lanes * width for name, (address, words, width) in maps.items()},
                    **{"images": self.images(number), "random_image": number * lanes, "random_batch": self.batch},
                    **fields,
                },
            )
            for number in range(self.micro_batches)
        ]


def plain_window(rows: int, columns: int) -> dict[str, int]:
    """Fields of a first operand of this size that is taken pixel by pixel."""
    one = dict.fromkeys(("kernel_rows", "kernel_columns", "stride_rows", "stride_columns"), 1)
    return {**one, "first_rows": rows, "first_columns": columns, "first_channel_words": rows * columns, "first_row_words": columns}
