"""What UPDATE reads, does and writes: the updates of a block and group as steps of about as many parameters each."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import Columns
from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.steps import Step
from fixgrad.simulate.timing.traffic import Asked, Bundle, Interleaving, Request

Ints = NDArray[np.int64]
WORD_BYTES = 4


class UpdateWork:
    """All UPDATEs of a program.

    Args:
        blocks: instructions of each block of UPDATEs, by the block's number.
        columns: fields of all UPDATEs.
        interleaving: of the memory.
        groups: of the machine.
        assumptions: for the parameters of a step.
        join: whether the updates of a block and group are taken together.
        catalogue: where their requests are put, for a compiled memory.
    """

    def __init__(
        self,
        blocks: dict[int, int],
        columns: Columns,
        interleaving: Interleaving,
        groups: int,
        assumptions: Assumptions,
        join: bool,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._counts: dict[tuple[int, int], int] = defaultdict(int)
        self._steps: dict[tuple[int, int], list[Step]] = defaultdict(list)
        self._join, self._catalogue = join, catalogue
        if blocks:
            self._build(blocks, columns, interleaving, groups, assumptions.step_parameters)

    def count(self, block: int, group: int) -> int:
        """Instructions of a group in a block."""
        return self._counts[block, group]

    def steps(self, block: int, group: int) -> list[Step]:
        """Steps of a group in a block; none where it has nothing to update."""
        return self._steps[block, group]

    def _build(self, blocks: dict[int, int], columns: Columns, interleaving: Interleaving, groups: int, most: int) -> None:
        numbers = np.array(list(blocks), np.int64)
        block = np.repeat(np.arange(len(numbers)), list(blocks.values()))
        owner = block * groups + columns["group"]
        for number, count in zip(*np.unique(owner, return_counts=True), strict=True):
            self._counts[int(numbers[number // groups]), int(number % groups)] = int(count)
        pieces = _cut(owner, columns, most)
        order = np.lexsort((np.arange(len(pieces["owner"])), pieces["owner"]))
        pieces = {name: values[order] for name, values in pieces.items()}
        step = _step_numbers(pieces["owner"], pieces["count"], most)
        count = int(step[-1]) + 1 if len(step) else 0
        requests: Sequence[Sequence[tuple[Request | Bundle | Asked, ...]]]
        if self._join:
            requests = [
                self._bundled(interleaving, step, count, *_of_all_tensors(pieces, write), write) for write in (False, True)
            ]
        else:
            requests = _single(pieces, step, count)
        cycles = np.bincount(step, weights=pieces["count"], minlength=count).astype(np.int64).tolist()
        first = np.searchsorted(step, np.arange(count))
        for index, of in enumerate(pieces["owner"][first].tolist()):
            key = int(numbers[of // groups]), of % groups
            self._steps[key].append(Step(requests[False][index], cycles[index], requests[True][index]))


    def _bundled(
        self, interleaving: Interleaving, step: Ints, count: int, addresses: Ints, sizes: Ints, write: bool
    ) -> Sequence[tuple[Bundle | Asked, ...]]:
        """Reads or writes of each step, as one bundle."""
        owners = np.tile(step, len(addresses) // max(len(step), 1))
        if self._catalogue is None:
            return [(bundle,) for bundle in interleaving.bundles(owners, count, addresses, sizes, write)]
        bundles = interleaving.bundle_arrays(owners, count, addresses, sizes, write)
        first = self._catalogue.add_bundles(bundles, np.zeros(count, np.int64))
        return [(Asked(number, number + 1, 0),) for number in range(first, first + count)]


def _cut(owner: Ints, columns: Columns, most: int) -> dict[str, Ints]:
    """UPDATEs cut into pieces of at most `most` parameters (whole kernels); those of no parameter are left out."""
    taps = np.maximum(columns["taps"], 1)
    size = np.maximum(most // taps, 1) * taps
    pieces = -(-columns["count"] // size)
    index = np.repeat(np.arange(len(owner)), pieces)
    done = (np.arange(len(index)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * size[index]
    count = np.minimum(columns["count"][index] - done, size[index])
    stored, momentum = columns["stored_bytes"][index], columns["momentum_bytes"][index]
    kernels = -(-count // taps[index])
    return {
        "owner": owner[index],
        "count": count,
        "stored": columns["stored"][index] + stored * done,
        "stored_size": stored * count,
        "momentum": columns["momentum"][index] + momentum * done,
        "momentum_size": momentum * count,
        "element": columns["element"][index] + WORD_BYTES * (done // taps[index]),
        "element_size": WORD_BYTES * kernels,
        "gradient": columns["gradient_source"][index] + WORD_BYTES * done,
        "gradient_size": WORD_BYTES * count * columns["from_memory"][index],
        "operand": columns["operand"][index] + done,
        "operand_size": count * columns["operands"][index],
    }


def _step_numbers(owner: Ints, count: Ints, most: int) -> Ints:
    """Number of the step of each piece, in order: a new one for each owner and about every `most` parameters."""
    if not len(owner):
        return owner
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    before = np.cumsum(count) - count
    before -= before[starts][np.searchsorted(starts, np.arange(len(owner)), "right") - 1]
    part = (before + count - 1) // most
    new = np.ones(len(owner), np.bool_)
    new[1:] = (np.diff(owner) != 0) | (np.diff(part) != 0)
    numbers: Ints = np.cumsum(new) - 1
    return numbers


def _tensors(write: bool) -> tuple[str, ...]:
    """What an update reads or writes."""
    return "stored", "momentum", "gradient", "operand" if write else "element"


def _of_all_tensors(pieces: dict[str, Ints], write: bool) -> tuple[Ints, Ints]:
    """Addresses and bytes of what an update reads or writes, one tensor behind the other."""
    names = _tensors(write)
    return np.concatenate([pieces[name] for name in names]), np.concatenate([pieces[f"{name}_size"] for name in names])


def _single(pieces: dict[str, Ints], step: Ints, count: int) -> list[list[tuple[Request, ...]]]:
    """Reads and writes of each step, one request for each tensor and piece."""
    found = []
    for write in (False, True):
        of: list[list[Request]] = [[] for _ in range(count)]
        for name in _tensors(write):
            columns = (step.tolist(), pieces[name].tolist(), pieces[f"{name}_size"].tolist())
            for index, address, size in zip(*columns, strict=True):
                if size:
                    of[index].append(Request(address, size, write=write))
        found.append([tuple(requests) for requests in of])
    return found
