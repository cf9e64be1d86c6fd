"""One simulation: the units of the machine run a program; what they did is kept."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.program import Program
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.simulate.dram import Fidelity
from fixgrad.simulate.timing.assumptions import DEFAULT, Assumptions
from fixgrad.simulate.timing.attribution import Cause, Gap, Ledger, LoadRecord, StepRecord, explain
from fixgrad.simulate.timing.compute import ComputeGroup
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Action, Agenda, Progress, SharedProgress
from fixgrad.simulate.timing.load import LoadUnit
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.pipeline import PipelineUnit
from fixgrad.simulate.timing.work import Work

Ints = NDArray[np.int64]


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
        self._agenda = agenda = Agenda()
        load, post = Progress(agenda), Progress(agenda)
        self._compute = SharedProgress(agenda, machine.groups)
        self._update = SharedProgress(agenda, machine.groups)
        progress = (load, self._compute, post, self._update)
        self._dispatcher = dispatcher = Dispatcher(
            work, agenda, self.memory, progress, program.layout.table.address("program")
        )
        begun = [0] * len(work.group_cycles)
        self.groups = [
            ComputeGroup(group, work, agenda, dispatcher, self._compute, begun) for group in range(machine.groups)
        ]
        self._load = _load_unit(work, agenda, memory, dispatcher, load)
        posts, latency = work.numbers(Unit.POST), machine.latencies.post
        self._post = PipelineUnit(
            work, agenda, memory, dispatcher, posts, latency, _without_number(post), drain=self._drain
        )
        self.update_owners: list[list[int]] = [[] for _ in range(machine.groups)]
        self._updaters = [self._updater(group) for group in range(machine.groups)]
        self.cycles = 0
        self._run()
        self.ledger = self._account()

    def _drain(self, group: int, begin: int, end: int, words: int) -> None:
        self.groups[group].drain(begin, end, words)

    def _updater(self, group: int) -> PipelineUnit:
        work, owners = self.work, self.update_owners[group]
        numbers = [number for number in work.numbers(Unit.UPDATE) if work.update_count(number, group)]
        blocks = 0

        def complete(time: int, number: int) -> None:
            nonlocal blocks
            for _ in range(work.update_count(number, group)):
                self._update.arrive(group, len(owners), time)
                owners.append(blocks)
            blocks += 1

        latency = work.machine.latencies.update
        return PipelineUnit(work, self._agenda, self.memory, self._dispatcher, numbers, latency, complete, group)

    def _run(self) -> None:
        self._dispatcher.start()
        steps: list[Action] = [unit.step for unit in self.groups]
        steps += [self._load.step, self._post.step, *(unit.step for unit in self._updaters)]
        for step in steps:
            self._agenda.at(0, step)
        self._halt = self.work.numbers(Unit.CONTROL)[-1]
        self._agenda.at(0, self._stop)
        self._agenda.run()
        self.memory.finish()
        assert self.cycles, "the program never reached its HALT"

    def _stop(self, now: int) -> None:
        found = self._dispatcher.ready(self._halt, self._stop)
        if found is not None:
            self.cycles, self._halt_blocker = found

    @property
    def loads(self) -> list[LoadRecord]:
        """Every block of LOAD."""
        return self._load.records

    @property
    def load_owners(self) -> list[int]:
        """Record of each LOAD."""
        return self._load.owners

    @property
    def posts(self) -> list[StepRecord]:
        """Every POST, LOSS and STATISTICS."""
        return self._post.records

    @property
    def updates(self) -> list[list[StepRecord]]:
        """Every block of UPDATEs, by group."""
        return [unit.records for unit in self._updaters]

    @property
    def update_last(self) -> list[int]:
        """The group that completed each UPDATE last."""
        return self._update.last

    @property
    def compute_last(self) -> list[int]:
        """The group that completed each COMPUTE last."""
        return self._compute.last

    @property
    def compute_times(self) -> list[int]:
        """When each COMPUTE completed in all groups."""
        return self._compute.times

    @property
    def compute_blocks(self) -> list[int]:
        """Numbers of the blocks of all COMPUTEs."""
        return self.work.numbers(Unit.COMPUTE)

    @property
    def compute_rows(self) -> list[int]:
        """Row of each COMPUTE."""
        return [self.work.blocks[number].row for number in self.compute_blocks]

    @property
    def compute_latency(self) -> int:
        """Cycles from the last operand of a COMPUTE to its completion."""
        return self.work.machine.latencies.compute

    @property
    def read_latency(self) -> int:
        """Cycles of one burst read from idle memory."""
        return self.memory.read_latency

    @property
    def write_latency(self) -> int:
        """Cycles of one burst written to idle memory."""
        return self.memory.write_latency

    def _account_runs(self, group: ComputeGroup, ledger: Ledger, rows: Ints) -> None:
        """The cycles between beginning and end of every COMPUTE of a group; `rows` [computes] are those of the result."""
        work, runs = self.work, np.array(group.runs, np.int64).reshape(-1, 3)
        start, end, stolen = runs.T
        rows, useful = rows[: len(runs)], work.useful_cycles[: len(runs), group.group]
        rest = (end - start - stolen - 1) * work.machine.pes_per_group - useful
        columns = (useful, stolen, np.ones_like(stolen), rest)
        for row, (pe, post, fill, imbalance) in enumerate(
            zip(*(_by_row(rows, values, len(work.rows)) for values in columns), strict=True)
        ):
            ledger.add_pe(row, Cause.COMPUTE, pe)
            ledger.add_group(row, Cause.POST, post)
            ledger.add_group(row, Cause.FILL, fill)
            ledger.add_pe(row, Cause.IMBALANCE, imbalance)

    def _account(self) -> Ledger:
        work, pes = self.work, self.work.machine.pes_per_group
        ledger = Ledger(len(work.rows), pes)
        history = _Kept(self)
        for group in self.groups:
            self._account_runs(group, ledger, np.array(history.compute_rows, np.int64))
            for gap in group.gaps:
                explain(gap, history, ledger)
            if group.free < self.cycles:
                last = Gap(group.group, group.free, self.cycles, self._halt_blocker, work.blocks[self._halt].row)
                explain(last, history, ledger)
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


def _load_unit(
    work: Work, agenda: Agenda, memory: MemorySystem, dispatcher: Dispatcher, progress: Progress
) -> LoadUnit:
    """The LOAD that belongs to a memory."""
    if type(memory) is MemorySystem:
        return LoadUnit(work, agenda, memory, dispatcher, progress)
    from fixgrad.simulate.timing.compiled import CompiledLoad, CompiledMemory

    assert isinstance(memory, CompiledMemory)
    return CompiledLoad(work, agenda, memory, dispatcher, progress)


def _without_number(progress: Progress) -> Callable[[int, int], None]:
    """What completes a block of one instruction."""

    def complete(time: int, number: int) -> None:
        progress.complete(time)

    return complete


class _Kept:
    """`History` of a simulation with its lists made once."""

    def __init__(self, of: Simulation) -> None:
        self.loads, self.load_owners, self.posts, self.updates = of.loads, of.load_owners, of.posts, of.updates
        self.update_owners, self.update_last, self.compute_last = of.update_owners, of.update_last, of.compute_last
        self.compute_times, self.compute_rows = of.compute_times, of.compute_rows
        self.compute_latency = of.compute_latency
        self.read_latency, self.write_latency = of.read_latency, of.write_latency
