"""Training steps on the functional simulator, with the verbs of `fixgrad.network.reference.ReferenceExecutor`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.errors import UsageError
from fixgrad.network import INPUT, State, StepTable, Trace, step_table
from fixgrad.network.operations import pass_forward
from fixgrad.network.reference import finish_step
from fixgrad.network.softmax import mean_loss
from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays
from fixgrad.simulate.functional.order import Order
from fixgrad.simulate.functional.recorder import Recorder, all_errors
from fixgrad.simulate.functional.run import run

Codes = NDArray[np.integer[Any]]
Image = NDArray[np.uint8]


def host_step(program: Program, image: Image, state: State, table: StepTable) -> Trace:
    """What the host does after a step: read the range registers, and move scales, operand shifts and sticky flags on.

    Args:
        image: after the program has run.
        state: of the run, changed in place; its weights stay as they are until `read_state`.
        table: of the step that has run.

    Returns:
        A trace of the measurements alone.
    """
    trace = measurements(program, image, table)
    registers = program.layout.read_statistics(image)
    for name, parameter in state.parameters.items():
        parameter.operand_shift = table.updates[name].operand_shift
        parameter.magnitude = registers[f"update/{name}"].magnitude_bits
    finish_step(state, trace)
    return trace


def measurements(program: Program, image: Image, table: StepTable) -> Trace:
    """What the range registers say, as the fields `forward_bits`, `error_bits`, `saturated` and `overflows` of a trace."""
    trace, registers = Trace(), program.layout.read_statistics(image)
    network, stages = program.network, program.layout.stages
    errors = {f"ng/{stage.name}": stage.layer.inputs[0] for stage in stages[1:]} | {f"loss/{network.logits}": network.logits}
    for name, register in registers.items():
        kind, _, item = name.partition("/")
        tensor = item if kind == "ff" else errors.get(name)
        if tensor is not None:
            bits = trace.forward_bits if kind == "ff" else trace.error_bits
            frac = table.forward[item].accumulator_frac if kind == "ff" else table.errors[tensor].accumulator_frac
            bits[tensor] = register.magnitude_bits, frac
            elements = program.batch * int(np.prod(network.shapes[tensor]))
            trace.saturated[f"{'activation' if kind == 'ff' else 'error'}/{tensor}"] = register.saturated / elements
        if register.overflow:
            phase = "wg" if kind == "update" else "ng" if kind == "loss" else kind
            trace.overflows.add(f"{item.rpartition('.')[0] if kind == 'update' else item}/{phase}")
    return trace


def read_state(program: Program, image: Image, state: State) -> None:
    """Copy stored weights and momenta from the image into `state`."""
    for name, parameter in state.parameters.items():
        found = program.layout.read_parameter(image, name)
        parameter.stored[...], parameter.momentum[...] = found.stored, found.momentum


class FunctionalExecutor:
    """Trains a network step by step on the simulated machine.

    Args:
        program: a training step; its network, batch and recipe are those of the run.
        state: is copied; after `calibrate` of another executor, so that every tensor has a scale.
        total_steps: length of the run, for the schedule.
        order: of the units among each other.
    """

    def __init__(self, program: Program, state: State, total_steps: int, order: Order | None = None) -> None:
        if program.mode != "train":
            raise UsageError(f"the program is a {program.mode} pass: compile it with mode='train'")
        self.program = program
        self.total_steps = total_steps
        self.order = order
        self.recorder = Recorder(program)
        self._state = state_from_arrays(program.network, *state_to_arrays(state))
        self._image: Image | None = None

    @property
    def image(self) -> Image:
        """The memory after the last step."""
        if self._image is None:
            raise UsageError("no step has run: call step() first")
        return self._image

    @property
    def state(self) -> State:
        """The state after the last step."""
        if self._image is not None:
            read_state(self.program, self._image, self._state)
        return self._state

    def step(self, x: Codes, labels: NDArray[np.integer[Any]]) -> Trace:
        """One training step on codes `x` [batch, ...] and labels [batch]; returns every tensor of the step."""
        program, network = self.program, self.program.network
        table = step_table(network, self._state, program.recipe, self.total_steps, program.batch)
        if self._image is None:
            self._image = program.build_image(self._state, table, x, labels)
        else:
            program.layout.update_step_table(self._image, table)
            program.layout.write_batch(self._image, x, labels)
        self.recorder = Recorder(program)
        run(program, self._image, self.recorder, self.order)
        trace = host_step(program, self._image, self._state, table)
        self._tensors(trace, table, x, labels)
        return trace

    def instruction_of(self, kind: str, name: str, place: tuple[int, ...]) -> int | None:
        """Position of the instruction that wrote an element last; see `Recorder.maker`."""
        return self.recorder.maker(kind, name, place)

    def _tensors(self, trace: Trace, table: StepTable, x: Codes, labels: NDArray[np.integer[Any]]) -> None:
        program, network, recorder = self.program, self.program.network, self.recorder
        trace.activations = _activations(program, recorder, self.image, x)
        trace.errors = all_errors(program, recorder, self.image)
        trace.gradients = {name: recorder.gradients_of(name) for name in network.parameters}
        trace.fracs = {INPUT: network.input_frac}
        for layer in network:
            source = network.source_of(layer.name)
            trace.fracs[layer.name] = network.input_frac if source == INPUT else table.forward[source].output_frac
        trace.error_fracs = {name: _error_frac(program, table, name) for name in trace.errors}
        logits = trace.activations[network.logits]
        trace.loss = mean_loss(logits, trace.fracs[network.logits], labels)
        trace.correct = int((logits.argmax(axis=1) == labels).sum())


def _activations(program: Program, recorder: Recorder, image: Image, x: Codes) -> dict[str, Codes]:
    """Codes of every tensor: from memory where they are stored, else as POST made them or as pooling's input."""
    network, layout, found = program.network, program.layout, {INPUT: x}
    stored, made = set(layout.stored_activations), recorder.activations
    for layer in network:
        if layer.name in stored:
            found[layer.name] = layout.read_activation(image, layer.name)
        elif layer.name in made:
            found[layer.name] = made[layer.name].reshape(program.batch, *network.shapes[layer.name])
        else:
            found[layer.name] = pass_forward(layer, found[layer.inputs[0]])
    return found


def _error_frac(program: Program, table: StepTable, tensor: str) -> int:
    """Fractional bits of the error of `tensor`: those with which NG (or LOSS) made it, further behind."""
    name = tensor
    while name not in table.errors:
        name = next(layer.name for layer in program.network if name in layer.inputs)
    return table.errors[name].frac
