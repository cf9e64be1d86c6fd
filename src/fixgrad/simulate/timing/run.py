"""One simulation: the units of the machine run a program; what they did is kept."""

from fixgrad.compiler.program import Program
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


class Simulation:
    """A program that has been run.

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
    ) -> None:
        machine = program.machine
        self.work = work = Work(program, assumptions)
        self.memory = MemorySystem(machine, fidelity, len(work.rows), keep_samples)
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
        self._load = LoadUnit(work, agenda, self.memory, dispatcher, load)
        self._post = PipelineUnit(
            work, agenda, self.memory, dispatcher, work.positions(Unit.POST), machine.latencies.post, post.complete, self._drain
        )
        self._updaters = [self._updater(group) for group in range(machine.groups)]
        self.cycles = 0
        self._run()
        self.ledger = self._account()

    def _drain(self, group: int, begin: int, end: int, words: int) -> None:
        self.groups[group].drain(begin, end, words)

    def _updater(self, group: int) -> PipelineUnit:
        work = self.work
        positions = [position for position in work.positions(Unit.UPDATE) if work.group_of(position) == group]
        completed = 0

        def complete(time: int) -> None:
            nonlocal completed
            self._update.arrive(group, completed, time)
            completed += 1

        latency = work.machine.latencies.update
        return PipelineUnit(work, self._agenda, self.memory, self._dispatcher, positions, latency, complete)

    def _run(self) -> None:
        self._dispatcher.start()
        steps: list[Action] = [unit.step for unit in self.groups]
        steps += [self._load.step, self._post.step, *(unit.step for unit in self._updaters)]
        for step in steps:
            self._agenda.at(0, step)
        self._halt = self.work.positions(Unit.CONTROL)[-1]
        self._agenda.at(0, self._stop)
        self._agenda.run()
        assert self.cycles, "the program never reached its HALT"

    def _stop(self, now: int) -> None:
        found = self._dispatcher.ready(self._halt, self._stop)
        if found is not None:
            self.cycles, self._halt_blocker = found

    @property
    def loads(self) -> list[LoadRecord]:
        """Every LOAD."""
        return self._load.records

    @property
    def posts(self) -> list[StepRecord]:
        """Every POST, LOSS and STATISTICS."""
        return self._post.records

    @property
    def updates(self) -> list[list[StepRecord]]:
        """Every UPDATE, by group."""
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
    def compute_positions(self) -> list[int]:
        """Positions of all COMPUTEs."""
        return self.work.positions(Unit.COMPUTE)

    @property
    def compute_rows(self) -> list[int]:
        """Row of each COMPUTE."""
        return [self.work.row[position] for position in self.compute_positions]

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

    def _account(self) -> Ledger:
        work, pes = self.work, self.work.machine.pes_per_group
        ledger = Ledger(len(work.rows), pes)
        history = _Kept(self)
        for group in self.groups:
            for number, run in enumerate(group.runs):
                row, useful = history.compute_rows[number], work.useful_cycles[number][group.group]
                length = run.end - run.start
                ledger.add_pe(row, Cause.COMPUTE, useful)
                ledger.add_group(row, Cause.POST, run.stolen)
                ledger.add_group(row, Cause.FILL, 1)
                ledger.add_pe(row, Cause.IMBALANCE, (length - run.stolen - 1) * pes - useful)
            for gap in group.gaps:
                explain(gap, history, ledger)
            if group.free < self.cycles:
                last = Gap(group.group, group.free, self.cycles, self._halt_blocker, work.row[self._halt])
                explain(last, history, ledger)
        assert ledger.total == self.cycles * work.machine.pes, "the causes do not add up to the time"
        return ledger


class _Kept:
    """`History` of a simulation with its lists made once."""

    def __init__(self, of: Simulation) -> None:
        self.loads, self.posts, self.updates = of.loads, of.posts, of.updates
        self.update_last, self.compute_last = of.update_last, of.compute_last
        self.compute_times, self.compute_rows = of.compute_times, of.compute_rows
        self.compute_latency = of.compute_latency
        self.read_latency, self.write_latency = of.read_latency, of.write_latency
