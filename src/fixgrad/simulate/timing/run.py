"""One simulation: the units of the machine run a program; what they did is kept."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.program import Program
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.simulate.dram import Fidelity
from fixgrad.simulate.timing.assumptions import DEFAULT, Assumptions
from fixgrad.simulate.timing.attribution import Cause, Ledger, LoadRecord, StepRecord
from fixgrad.simulate.timing.compute import GroupRuns
from fixgrad.simulate.timing.interpreted import Interpreted
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.work import Work

Ints = NDArray[np.int64]


class Outcome(Protocol):
    """What a run leaves, interpreted or compiled: records of each unit, as in `Simulation`, and the cycle of HALT."""

    cycles: int

    @property
    def groups(self) -> Sequence[GroupRuns]: ...
    @property
    def loads(self) -> list[LoadRecord]: ...
    @property
    def posts(self) -> list[StepRecord]: ...
    @property
    def updates(self) -> list[list[StepRecord]]: ...

    def explain(self, ledger: Ledger) -> None:
        """Give every cycle in which a group waited to a cause."""


class Simulation:
    """A program that has been run.

    Args:
        program: what to run.
        fidelity: of the DRAM model.
        assumptions: depths of queues and buffers.
        keep_samples: whether memory keeps what each service moved.
        join: whether runs of short instructions are taken together. None: in long programs, with closed forms.

    Attributes:
        work: the program.
        memory: with the bytes that it moved.
        cycles: from the start to HALT.
        ledger: PE cycles by row and cause; they add up to `cycles` times the PEs.
    """

    def __init__(
        self,
        program: Program,
        fidelity: Fidelity = Fidelity.CLOSED_FORM,
        assumptions: Assumptions = DEFAULT,
        keep_samples: bool = False,
        join: bool | None = None,
    ) -> None:
        machine, length = program.machine, len(program.opcodes)
        if join is None:
            join = fidelity is Fidelity.CLOSED_FORM and length > assumptions.join_above
        closed = fidelity is Fidelity.CLOSED_FORM and not keep_samples
        compiled = closed and join and length > assumptions.compile_above
        self.memory = memory = _memory(machine, fidelity, keep_samples, compiled)
        self.work = work = Work(program, assumptions, memory.interleaving, join, memory.catalogue)
        memory.begin(len(work.rows))
        self._outcome = _run(work, memory, program.layout.table.address("program"))
        memory.finish()
        self.cycles = self._outcome.cycles
        self.ledger = self._account()

    @property
    def groups(self) -> Sequence[GroupRuns]:
        """Every COMPUTE of every group."""
        return self._outcome.groups

    @property
    def loads(self) -> list[LoadRecord]:
        """Every block of LOAD."""
        return self._outcome.loads

    @property
    def posts(self) -> list[StepRecord]:
        """Every POST, LOSS and STATISTICS."""
        return self._outcome.posts

    @property
    def updates(self) -> list[list[StepRecord]]:
        """Every block of UPDATEs of a group, by lane, in the order in which they were begun."""
        return self._outcome.updates

    @property
    def compute_blocks(self) -> list[int]:
        """Numbers of the blocks of all COMPUTEs."""
        return self.work.numbers(Unit.COMPUTE)

    def _account_runs(self, group: GroupRuns, ledger: Ledger, rows: Ints) -> None:
        """The cycles between beginning and end of every COMPUTE of a group; `rows` [computes] are those of the result."""
        work, runs = self.work, group.run_array()
        start, end, stolen = runs.T
        rows, useful = rows[: len(runs)], work.useful_cycles[: len(runs), group.group]
        fill = np.full_like(stolen, work.assumptions.compute_fill)
        rest = (end - start - stolen - fill) * work.machine.pes_per_group - useful
        columns = (useful, stolen, fill, rest)
        for row, (pe, post, fill, imbalance) in enumerate(
            zip(*(_by_row(rows, values, len(work.rows)) for values in columns), strict=True)
        ):
            ledger.add_pe(row, Cause.COMPUTE, pe)
            ledger.add_group(row, Cause.POST, post)
            ledger.add_group(row, Cause.FILL, fill)
            ledger.add_pe(row, Cause.IMBALANCE, imbalance)

    def _account(self) -> Ledger:
        work, rows = self.work, self.work.arrays.row[self.compute_blocks]
        ledger = Ledger(len(work.rows), work.machine.pes_per_group)
        for group in self.groups:
            self._account_runs(group, ledger, rows)
        self._outcome.explain(ledger)
        assert ledger.total == self.cycles * work.machine.pes, "the causes do not add up to the time"
        return ledger


def _by_row(rows: Ints, values: Ints, count: int) -> list[int]:
    """Sums of values by row."""
    sums = np.zeros(count, np.int64)
    np.add.at(sums, rows, values)
    found: list[int] = sums.tolist()
    return found


def _memory(machine: Machine, fidelity: Fidelity, keep_samples: bool, compiled: bool) -> MemorySystem:
    """The memory, compiled or interpreted."""
    if not compiled:
        return MemorySystem(machine, fidelity, keep_samples)
    from fixgrad.simulate.timing.compiled import CompiledMemory  # numba, only where it pays

    return CompiledMemory(machine)


def _run(work: Work, memory: MemorySystem, program_address: int) -> Outcome:
    """Run a program with the units that belong to a memory."""
    if type(memory) is MemorySystem:
        return Interpreted(work, memory, program_address)
    from fixgrad.simulate.timing.compiled import Compiled, CompiledMemory

    assert isinstance(memory, CompiledMemory)
    return Compiled(work, memory, program_address)
