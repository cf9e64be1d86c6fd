"""What UPDATE reads, does and writes: the updates of a block and group as steps of about as many parameters each."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import ALL_PES
from fixgrad.compiler.packing import Columns
from fixgrad.machine import Machine
from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.steps import Drain, Step
from fixgrad.simulate.timing.traffic import Bundle, Interleaving, Request

Ints = NDArray[np.int64]
WORD_BYTES = 4


class UpdateWork:
    """All UPDATEs of a program.

    Args:
        numbers: of the blocks of UPDATEs, ascending, and instructions: how many each holds.
        columns: fields of all UPDATEs.
        interleaving: of the memory.
        machine: whose groups and PEs.
        assumptions: for the parameters of a step, and what comes before the first one.
        join: whether the updates of a block and group are taken together.
        catalogue: where their requests are put, for a compiled memory.

    Attributes:
        counts: instructions of each block in each group, [blocks, groups].
        owners, cycles: of each step: block x groups + group, ascending, and cycles.
        taken: of each step: gradients that it takes of each PE of the group, in the mean.
        setups: cycles before each block asks for the first data of a group, [blocks, groups].
        asked: in a catalogue, the request that each step reads and the one that it writes, [2, steps].
    """

    def __init__(
        self,
        numbers: Ints,
        instructions: Ints,
        columns: Columns,
        interleaving: Interleaving,
        machine: Machine,
        assumptions: Assumptions,
        join: bool,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._place = {number: place for place, number in enumerate(numbers.tolist())}
        self._steps: dict[int, list[Step]] = defaultdict(list)
        groups, self._pes = machine.groups, machine.pes_per_group
        self._join, self._groups = join, groups
        self.counts, self.asked = np.zeros((len(numbers), groups), np.int64), np.zeros((2, 0), np.int64)
        self.owners, self.cycles, self.taken = (np.zeros(0, np.int64) for _ in range(3))
        self.setups = np.zeros((len(numbers), groups), np.int64)
        if not len(numbers):
            return
        owner = np.repeat(np.arange(len(numbers)), instructions) * groups + columns["group"]
        self.counts = np.bincount(owner, minlength=len(numbers) * groups).reshape(-1, groups)
        owners, first = np.unique(owner, return_index=True)
        taps, sizes = columns["taps"][first].astype(np.int64), columns["count"][first]
        elements = np.where(taps > 1, -(-sizes // np.maximum(taps, 1)), 0)
        self.setups.reshape(-1)[owners] = assumptions.update_setup + elements
        self._build(owner, columns, interleaving, assumptions.step_parameters, catalogue)

    def count(self, block: int, group: int) -> int:
        """Instructions of a group in a block."""
        return int(self.counts[self._place[block], group])

    def setup(self, block: int, group: int) -> int:
        """`setups` of one."""
        return int(self.setups[self._place[block], group])

    def steps(self, block: int, group: int) -> list[Step]:
        """Steps of a group in a block; none where it has nothing to update. For a memory without a catalogue."""
        return self._steps[self._place[block] * self._groups + group]

    def _build(
        self, owner: Ints, columns: Columns, interleaving: Interleaving, most: int, catalogue: Catalogue | None
    ) -> None:
        pieces = _cut(owner, columns, most, self._pes)
        order = np.lexsort((np.arange(len(pieces["owner"])), pieces["owner"]))
        pieces = {name: values[order] for name, values in pieces.items()}
        step = _step_numbers(pieces["owner"], pieces["count"], most)
        count = int(step[-1]) + 1 if len(step) else 0
        self.cycles = np.bincount(step, weights=pieces["count"], minlength=count).astype(np.int64)
        taken = np.bincount(step, weights=pieces["taken"], minlength=count).astype(np.int64)
        self.taken = taken // self._pes
        self.owners = pieces["owner"][np.searchsorted(step, np.arange(count))]
        if catalogue is not None:
            firsts = [
                catalogue.add_bundles(
                    interleaving.bundle_arrays(*_in_steps(pieces, step, count, write), write), np.zeros(count, np.int64)
                )
                for write in (False, True)
            ]
            self.asked = np.array(firsts)[:, None] + np.arange(count)
            return
        requests: Sequence[Sequence[tuple[Request | Bundle, ...]]] = _single(pieces, step, count)
        if self._join:
            requests = [
                [(bundle,) for bundle in interleaving.bundles(*_in_steps(pieces, step, count, write), write)]
                for write in (False, True)
            ]
        drains = [Drain(of % self._groups, words) for of, words in zip(self.owners.tolist(), self.taken.tolist(), strict=True)]
        for of, cycles, reads, writes, drain in zip(self.owners.tolist(), self.cycles.tolist(), *requests, drains, strict=True):
            self._steps[of].append(Step(reads, cycles, writes, (drain,)))


def _in_steps(pieces: dict[str, Ints], step: Ints, count: int, write: bool) -> tuple[Ints, int, Ints, Ints]:
    """Step of each read or write, how many steps there are, addresses and sizes."""
    addresses, sizes = _of_all_tensors(pieces, write)
    return np.tile(step, len(addresses) // max(len(step), 1)), count, addresses, sizes


def _cut(owner: Ints, columns: Columns, most: int, pes: int) -> dict[str, Ints]:
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
        # Of all PEs at once, or of one.
        "taken": count * np.where(columns["pe"][index] == ALL_PES, pes, 1) * (1 - columns["from_memory"][index]),
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
