"""What the instructions of the elementwise unit read, do and write."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import ELEMENTWISE_KINDS, ERRORS_OF_MAXIMA, NORMALISE_NG, RECORD_BYTES
from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.regions import Fields
from fixgrad.simulate.timing.steps import Step
from fixgrad.simulate.timing.traffic import Request

#: Kinds of instructions that begin when all POST instructions before them have completed, and end before the next one begins.
ALONE = frozenset(kind.name for kind in ELEMENTWISE_KINDS)
WORD_BYTES, COEFFICIENT_BYTES = 4, 24


class Meetings(NamedTuple):
    """Of each pixel along an axis of the result: the first tap's place in the operand, how many taps are inside, and how many
    have a place at all, in the padding or inside: those between the strides of a transposed window have none.
    """

    first: tuple[int, ...]
    taps: tuple[int, ...]
    placed: tuple[int, ...]


@lru_cache(maxsize=1024)
def meetings(computed: int, read: int, kernel: int, stride: int, pad: int, transposed: bool) -> Meetings:
    """The taps of an axis that ELEMENTWISE reads."""
    pixel, tap = np.arange(computed)[:, None], np.arange(kernel)[None, :]
    if transposed:
        place, rest = np.divmod(pixel + pad - tap, stride)
    else:
        place, rest = pixel * stride + tap - pad, np.zeros((computed, kernel), np.int64)
    inside = (rest == 0) & (place >= 0) & (place < read)
    first = np.where(inside, place, read).min(axis=1)
    return Meetings(*(tuple(values.tolist()) for values in (first, inside.sum(axis=1), (rest == 0).sum(axis=1))))


@dataclass(frozen=True, slots=True)
class ElementwiseWork:
    """The elementwise unit of a machine."""

    machine: Machine
    assumptions: Assumptions

    def steps(self, name: str, fields: Fields, at: int) -> Iterator[Step]:
        """The steps of instruction number `at` of the kind `name`."""
        one = {field: values[at] for field, values in fields.items()}
        match name:
            case "ELEMENTWISE":
                return self._plain(one) if _is_plain(one) else self._windows(one)
            case "CHANNEL_SUMS":
                return self._sums(one)
        return self._scalars(one)

    @property
    def _word_cycles(self) -> int:
        """Cycles of a word of all lanes."""
        return self.machine.lanes // self.machine.elementwise_lanes

    def _plain(self, i: dict[str, int]) -> Iterator[Step]:
        """Maps that are read once from the first address to the last."""
        lanes, code = self.machine.lanes, 1 + (i["out_bits"] > 8)
        total = i["channels"] * i["rows"] * i["columns"]
        most = max(self.assumptions.step_bytes // (lanes * code), 1)
        operands = [("first", 1 + i["first_wide"]), ("second", 1 + i["second_wide"])][: i["operands"]]
        operands += [("mask", 1)] * i["masked"]
        for start in range(0, total, most):
            words = min(most, total - start)
            reads = [Request(i[name] + start * lanes * width, words * lanes * width) for name, width in operands]
            reads += _of_channels(i) if start == 0 else []
            write = Request(i["target"] + start * lanes * code, words * lanes * code, write=True)
            yield Step(tuple(reads), words * self._word_cycles, (write,))

    def _windows(self, i: dict[str, int]) -> Iterator[Step]:
        """Channel by channel and some rows at a time, each tap's word read for each pixel that it belongs to."""
        lanes, code, transposed = self.machine.lanes, 1 + (i["out_bits"] > 8), bool(i["transposed"])
        rows = meetings(i["rows"], i["first_rows"], i["kernel_rows"], i["stride_rows"], i["pad_rows"], transposed)
        columns = meetings(i["columns"], i["first_columns"], i["kernel_columns"], i["stride_columns"], i["pad_columns"], transposed)
        together = max(self.assumptions.step_bytes // (i["columns"] * lanes * code), 1)
        pending = _of_channels(i)
        for channel in range(i["channels"]):
            for top in range(0, i["rows"], together):
                count = min(together, i["rows"] - top)
                taken = range(top, top + count)
                reads = [*pending, *self._taps(i, channel, rows, columns, taken)]
                place = channel * i["channel_words"] + top * i["row_words"]
                beside = [("second", 1 + i["second_wide"])] * (i["operands"] == 2) + [("mask", 1)] * i["masked"]
                for name, width in beside:
                    own = channel * i[f"{name}_channel_words"] + top * i[f"{name}_row_words"]
                    reads.append(Request(i[name] + own * lanes * width, count * i["columns"] * lanes * width))
                writes = [Request(i["target"] + place * lanes * code, count * i["columns"] * lanes * code, write=True)]
                if i["with_argmax"]:
                    writes.append(Request(i["argmax"] + place * lanes, count * i["columns"] * lanes, write=True))
                words = sum(_walked(rows, row, columns) for row in taken)
                yield Step(tuple(reads), words * self._word_cycles, tuple(writes))
                pending = []

    def _taps(self, i: dict[str, int], channel: int, rows: Meetings, columns: Meetings, taken: range) -> list[Request]:
        """What is read of the first operand for some rows of the result, joined where it lies together."""
        width = 1 + i["first_wide"]
        maps = [("first", width)] + [("argmax", 1)] * (i["combine"] == ERRORS_OF_MAXIMA)
        words, left = sum(columns.taps), min(columns.first)
        found: list[Request] = []
        for name, size in maps:
            word = self.machine.lanes * size
            for row in taken:
                for tap in range(rows.taps[row]):
                    place = channel * i["first_channel_words"] + (rows.first[row] + tap) * i["first_row_words"] + left
                    asked = _row(i, i[name] + place * word, word, words)
                    before = found[-1] if found else None
                    if before and asked.runs == before.runs == 1 and before.address + before.run == asked.address:
                        found[-1] = before._replace(run=before.run + asked.run)
                    else:
                        found.append(asked)
        return found

    def _sums(self, i: dict[str, int]) -> Iterator[Step]:
        """Channel by channel, all micro-batches; several channels in a step."""
        lanes, limit = self.machine.lanes, self.assumptions.step_bytes
        operands = [("first", 1 + i["first_wide"])]
        if i["products"] and (i["first"], i["first_wide"]) != (i["second"], i["second_wide"]):
            operands.append(("second", 1 + i["second_wide"]))
        reads, words, channels = list[Request](), 0, 0
        for channel in range(i["channels"]):
            for micro_batch in range(i["micro_batches"]):
                place = micro_batch * i["batch_words"] + channel * i["channel_words"]
                for start in range(0, i["pixels"], max(limit // lanes, 1)):
                    count = min(max(limit // lanes, 1), i["pixels"] - start)
                    reads += [Request(i[name] + (place + start) * lanes * width, count * lanes * width) for name, width in operands]
                    words += count
                    if words * lanes >= limit:
                        yield Step(tuple(reads), words * self._word_cycles, ())
                        reads, words = [], 0
            channels += 1
            if channels * RECORD_BYTES >= limit or channel == i["channels"] - 1:
                yield Step(tuple(reads), words * self._word_cycles, (_sum_request(i, channel + 1 - channels, channels),))
                reads, words, channels = [], 0, 0

    def _scalars(self, i: dict[str, int]) -> Iterator[Step]:
        """One channel after the other; several in a step."""
        together = max(self.assumptions.step_bytes // RECORD_BYTES, 1)
        for first in range(0, i["channels"], together):
            count = min(together, i["channels"] - first)
            record = Request(i["record"] + RECORD_BYTES * first, RECORD_BYTES * count)
            vectors = ["gamma"] if i["mode"] == NORMALISE_NG else ["gamma", "beta"]
            results = ["gamma_gradient", "beta_gradient"] if i["mode"] == NORMALISE_NG else []
            reads = [record, *(Request(i[name] + WORD_BYTES * first, WORD_BYTES * count) for name in vectors)]
            writes = [record._replace(write=True)]
            writes += [Request(i[name] + WORD_BYTES * first, WORD_BYTES * count, write=True) for name in results]
            latencies = self.machine.latencies
            each = latencies.normalise_errors if i["mode"] == NORMALISE_NG else latencies.normalise
            yield Step(tuple(reads), count * each, tuple(writes))


def _walked(rows: Meetings, row: int, columns: Meetings) -> int:
    """Taps that a row of the result walks through: those with a place of a window's row that is inside, one of a row in the
    padding, and one of a pixel that has none.
    """
    inside, padding = rows.taps[row], rows.placed[row] - rows.taps[row]
    return sum(max(inside * max(placed, 1) + padding, 1) for placed in columns.placed)


def _is_plain(i: dict[str, int]) -> bool:
    """Whether every map is read or written from its first word to its last, a word for each pixel."""
    if i["operands"] == 0:
        return True
    size = i["rows"], i["columns"]
    one = all(i[f"{name}_{axis}"] == 1 for name in ("kernel", "stride") for axis in ("rows", "columns"))
    return one and not i["transposed"] and not i["with_argmax"] and size == (i["first_rows"], i["first_columns"])


def _of_channels(i: dict[str, int]) -> list[Request]:
    """What is read once for each channel: coefficients, and first random elements."""
    found = []
    if i["per_channel"]:
        found.append(Request(i["record"] + 16, COEFFICIENT_BYTES, i["channels"], RECORD_BYTES))
    if i["element"]:
        found.append(Request(i["element"], WORD_BYTES * i["channels"]))
    return found


def _row(i: dict[str, int], address: int, word: int, words: int) -> Request:
    """One row of taps: words one behind the other, or every n-th where single pixels are picked."""
    if i["kernel_columns"] == 1 and not i["transposed"] and i["stride_columns"] > 1:
        return Request(address, word, words, word * i["stride_columns"])
    return Request(address, word * words)


def _sum_request(i: dict[str, int], first: int, channels: int) -> Request:
    if i["products"]:
        return Request(i["target"] + RECORD_BYTES * first, 16, channels, RECORD_BYTES, write=True)
    return Request(i["target"] + WORD_BYTES * first, WORD_BYTES * channels, write=True)
