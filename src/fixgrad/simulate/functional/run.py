"""Run a program on a memory image: decode its instructions, and let each unit do what the table says."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction, disassemble
from fixgrad.machine.instructions import Unit
from fixgrad.simulate.functional.chip import Chip
from fixgrad.simulate.functional.compute import compute
from fixgrad.simulate.functional.elementwise import channel_sums, elementwise
from fixgrad.simulate.functional.fault import Fault, IllegalInstruction
from fixgrad.simulate.functional.load import load_error, load_input, load_kernels, load_params
from fixgrad.simulate.functional.loss import loss
from fixgrad.simulate.functional.normalise import normalise
from fixgrad.simulate.functional.order import Agent, Order
from fixgrad.simulate.functional.post import post, store_statistics
from fixgrad.simulate.functional.update import run_update

_LOADS = {
    "LOAD_PARAMS": load_params,
    "LOAD_INPUT": load_input,
    "LOAD_ERROR": load_error,
    "LOAD_KERNELS": load_kernels,
}
#: Units of which every group has one of its own.
_BY_GROUP = (Unit.COMPUTE, Unit.UPDATE)


class Observer(Protocol):
    """Sees what never reaches memory: codes before pooling, errors before they are scattered, weight gradients."""

    def saw_codes(self, index: int, instruction: Instruction, codes: NDArray[np.int64]) -> None:
        """POST or LOSS made these codes, [channels, rows, columns, lanes]."""

    def saw_gradients(self, index: int, instruction: Instruction, gradients: NDArray[np.int32]) -> None:
        """UPDATE took these gradients."""


def run(program: Program, image: NDArray[np.uint8], trace: Observer | None = None, order: Order | None = None) -> None:
    """Execute `program` on `image`, in place.

    Args:
        image: see `Program.build_image`; the instructions are read from it.
        trace: told of every result that is not in the image afterwards.
        order: of the units among each other; by default that of the program.

    Raises:
        IllegalInstruction: an instruction that cannot be executed, or never can begin.
    """
    region = program.layout.regions["program"]
    instructions = program.instructions.from_image(image[region.address : region.end])
    execute(program.machine, image, list(instructions), trace, order)


def execute(
    machine: Machine,
    image: NDArray[np.uint8],
    instructions: Sequence[Instruction],
    trace: Observer | None = None,
    order: Order | None = None,
    after: Callable[[int], None] | None = None,
) -> None:
    """Execute instructions on `image`, in place; they need not be those of a compiled program.

    `after` is told the index of each instruction that has been executed (of COMPUTE once for each group, with an order).

    Raises:
        IllegalInstruction: an instruction that cannot be executed, or never can begin.
    """
    simulation = _Simulation(machine, image, instructions, trace, after)
    simulation.in_program_order() if order is None else simulation.in_order(order)


class _Simulation:
    def __init__(
        self,
        machine: Machine,
        image: NDArray[np.uint8],
        instructions: Sequence[Instruction],
        trace: Observer | None,
        after: Callable[[int], None] | None,
    ) -> None:
        self.instructions = instructions
        self.chip = Chip(machine, image)
        self.trace, self.after = trace, after
        self.all_groups = range(machine.groups)
        self.queues: dict[Agent, list[int]] = {}
        self.done: dict[Agent, int] = {}
        self.halted = False
        for agent in self._agents():
            self.queues[agent], self.done[agent] = [], 0
        for index, item in enumerate(instructions):
            for agent in self._takers(item):
                self.queues[agent].append(index)

    def _agents(self) -> Iterator[Agent]:
        for unit in Unit:
            for group in self.all_groups if unit in _BY_GROUP else (0,):
                yield unit, group

    def _takers(self, item: Instruction) -> list[Agent]:
        """Whose queue an instruction joins."""
        if item.unit is Unit.COMPUTE:
            return [(Unit.COMPUTE, group) for group in self.all_groups]
        return [(item.unit, item.group % len(self.all_groups) if item.unit is Unit.UPDATE else 0)]

    def in_program_order(self) -> None:
        """One instruction after the other, COMPUTE in all groups at once."""
        for index, item in enumerate(self.instructions):
            if not self._may_begin(item):
                self._fail(index, "it waits for instructions that stand behind it")
            self._execute(index, self.all_groups)
            for agent in self._takers(item):
                self.done[agent] += 1
        self._check_halted()

    def in_order(self, order: Order) -> None:
        """Whoever may go on gets a turn as `order` says; an instruction of one group is atomic."""
        while not self.halted:
            ready = [agent for agent in self.queues if self._is_ready(agent)]
            if not ready:
                stuck = min(self.queues[agent][done] for agent, done in self.done.items() if done < len(self.queues[agent]))
                self._fail(stuck, "it waits for instructions that wait for it")
            agent = order.choose(ready)
            self._execute(self.queues[agent][self.done[agent]], (agent[1],))
            self.done[agent] += 1
        self._check_halted()

    def _is_ready(self, agent: Agent) -> bool:
        done = self.done[agent]
        return done < len(self.queues[agent]) and self._may_begin(self.instructions[self.queues[agent][done]])

    def _may_begin(self, item: Instruction) -> bool:
        return (
            self.done[Unit.LOAD, 0] >= item.wait_load
            and self.done[Unit.POST, 0] >= item.wait_post
            and min(self.done[Unit.COMPUTE, group] for group in self.all_groups) >= item.wait_compute
            and min(self.done[Unit.UPDATE, group] for group in self.all_groups) >= item.wait_update
        )

    def _check_halted(self) -> None:
        for agent, done in self.done.items():
            if done < len(self.queues[agent]):
                self._fail(self.queues[agent][done], "the machine halts before it")
        if not self.halted:
            self._fail(len(self.instructions) - 1, "the program ends without HALT")

    def _execute(self, index: int, groups: Sequence[int]) -> None:
        item = self.instructions[index]
        try:
            self._dispatch(index, item, groups)
        except Fault as fault:
            raise IllegalInstruction(index, disassemble(item), str(fault)) from None
        except (ValueError, LookupError, ArithmeticError) as problem:  # sizes and step-table entries that no compiler writes
            raise IllegalInstruction(index, disassemble(item), f"its operands make no sense ({problem})") from problem
        if self.after is not None:
            self.after(index)

    def _dispatch(self, index: int, item: Instruction, groups: Sequence[int]) -> None:
        chip, result = self.chip, None
        match item.name:
            case "COMPUTE":
                compute(chip, item, groups)
            case "POST":
                result = post(chip, item)
            case "LOSS":
                result = loss(chip, item)
            case "UPDATE":
                gradients = run_update(chip, item)
                if self.trace is not None:
                    self.trace.saw_gradients(index, item, gradients)
            case "ELEMENTWISE":
                result = elementwise(chip, item)
            case "CHANNEL_SUMS":
                channel_sums(chip, item)
            case "NORMALISE":
                normalise(chip, item)
            case "STATISTICS":
                store_statistics(chip, item)
            case "HALT":
                self.halted = True
            case name:
                _LOADS[name](chip, item)
        if self.trace is not None and result is not None:
            self.trace.saw_codes(index, item, result)

    def _fail(self, index: int, reason: str) -> Any:
        raise IllegalInstruction(index, disassemble(self.instructions[index]), reason)
