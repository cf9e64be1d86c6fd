"""Training steps on the functional simulator, which sees every tensor of a step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.network import INPUT, State, StepTable, Trace
from fixgrad.network.operations import pass_forward
from fixgrad.simulate.functional.device import FunctionalDevice
from fixgrad.simulate.functional.order import Order
from fixgrad.simulate.functional.recorder import Recorder, all_errors
from fixgrad.simulate.host import HostExecutor

Codes = NDArray[np.integer[Any]]


class FunctionalExecutor(HostExecutor):
    """The host's driver on the functional simulator; its traces hold what never reaches memory, too.

    Args:
        program, state, total_steps: see `HostExecutor`.
        order: of the units among each other.

    Attributes:
        recorder: of the last step.
    """

    def __init__(self, program: Program, state: State, total_steps: int, order: Order | None = None) -> None:
        self._simulator = FunctionalDevice(program.machine, program.layout.bytes, order)
        super().__init__(program, state, total_steps, self._simulator)
        self.recorder = Recorder(program)

    def step(self, x: Codes, labels: NDArray[np.integer[Any]]) -> Trace:
        """One training step on codes `x` [batch, ...] and labels [batch]; returns every tensor of the step."""
        self._simulator.observer = self.recorder = Recorder(self.program)
        return super().step(x, labels)

    def instruction_of(self, kind: str, name: str, place: tuple[int, ...]) -> int | None:
        """Position of the instruction that wrote an element last; see `Recorder.maker`."""
        return self.recorder.maker(kind, name, place)

    def _read_tensors(self, trace: Trace, table: StepTable, x: Codes, labels: NDArray[np.integer[Any]]) -> None:
        super()._read_tensors(trace, table, x, labels)
        trace.gradients = {name: self.recorder.gradients_of(name) for name in self.program.network.parameters}

    def _activations(self, x: Codes) -> dict[str, Codes]:
        """Codes of every tensor: from memory where they are stored, else as POST made them or as pooling's input."""
        program, layout, found = self.program, self.program.layout, {INPUT: x}
        stored, made = set(layout.stored_activations), self.recorder.activations
        for layer in program.network:
            if layer.name in stored:
                found[layer.name] = layout.read_activation(self.image, layer.name)
            elif layer.name in made:
                found[layer.name] = made[layer.name].reshape(program.batch, *program.network.shapes[layer.name])
            else:
                found[layer.name] = pass_forward(layer, found[layer.inputs[0]])
        return found

    def _errors(self) -> dict[str, Codes]:
        return all_errors(self.program, self.recorder, self.image)
