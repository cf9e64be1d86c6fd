"""The host of a machine: it compiles nothing and computes nothing, it writes memory, starts a program and reads memory back.

One driver for every device: the functional simulator, the RTL, a board.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.compiler.stages import Stage
from fixgrad.errors import UsageError
from fixgrad.machine.device import Device, DeviceError, Outcome
from fixgrad.machine.encoding import explain_mismatch, identity
from fixgrad.machine.registers import ErrorCode
from fixgrad.network import INPUT, MacLayer, State, StepTable, Trace, step_table
from fixgrad.network.operations import pass_forward
from fixgrad.network.reference import finish_step
from fixgrad.network.softmax import mean_loss
from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays

Codes = NDArray[np.integer[Any]]
Image = NDArray[np.uint8]


class HostExecutor:
    """Trains a network step by step on a device, with the verbs of `fixgrad.network.reference.ReferenceExecutor`.

    The whole image is written before the first step. Before each further one only what a step needs anew is: step table,
    input and labels. Weights and momenta live in the device's memory.

    Args:
        program: a training step; its network, batch and recipe are those of the run.
        state: is copied; after `calibrate` of another executor, so that every tensor has a scale.
        total_steps: length of the run, for the schedule.
        device: the machine of the program, with at least as much memory as the program's image.

    Attributes:
        outcome: how the last step's program ended: its cycles, and where they went.

    Raises:
        UsageError: the program is no training step, or for another machine.
        DeviceError: the device has too little memory.
    """

    def __init__(self, program: Program, state: State, total_steps: int, device: Device) -> None:
        if program.mode != "train":
            raise UsageError(f"the program is a {program.mode} pass: compile it with mode='train'")
        if program.identity != identity(device.machine):
            raise UsageError(f"the program is for another machine: {explain_mismatch(program.machine, device.machine)}")
        device.check_range(0, program.layout.bytes)
        self.program = program
        self.total_steps = total_steps
        self.device = device
        self.outcome = Outcome(ErrorCode.NONE)
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
        """One training step on codes `x` [batch, ...] and labels [batch].

        Returns:
            The tensors of the step that are in memory after it, and the measurements.

        Raises:
            DeviceError: the machine stopped before HALT; says why, and at which instruction.
        """
        program = self.program
        table = step_table(program.network, self._state, program.recipe, self.total_steps, program.batch)
        self._write(table, x, labels)
        self.outcome = self.device.run(program.layout.table.address("program"), len(program.encoded))
        if self.outcome.error is not ErrorCode.NONE:
            raise DeviceError(self.outcome.explain(program.encoded))
        self._image = self.device.read_memory(0, program.layout.bytes)
        trace = host_step(program, self._image, self._state, table)
        self._read_tensors(trace, table, x, labels)
        return trace

    def _write(self, table: StepTable, x: Codes, labels: NDArray[np.integer[Any]]) -> None:
        layout = self.program.layout
        if self._image is None:
            self.device.write_memory(0, self.program.build_image(self._state, table, x, labels))
            return
        layout.update_step_table(self._image, table)
        layout.write_batch(self._image, x, labels)
        for name in ("step_table", "labels", f"activation/{layout.graph.source.name}"):
            region = layout.regions[name]
            self.device.write_memory(region.address, self._image[region.address : region.end])

    def _read_tensors(self, trace: Trace, table: StepTable, x: Codes, labels: NDArray[np.integer[Any]]) -> None:
        program, network = self.program, self.program.network
        trace.activations = self._activations(x)
        trace.errors = self._errors()
        trace.fracs = dict(table.fracs)
        made = program.layout.graph.error_made
        trace.error_fracs = {name: table.errors[made.get(name, name)].frac for name in trace.errors}
        logits = trace.activations[network.logits]
        trace.loss = mean_loss(logits, trace.fracs[network.logits], labels)
        trace.correct = int((logits.argmax(axis=1) == labels).sum())

    def _activations(self, x: Codes) -> dict[str, Codes]:
        """Codes of every tensor that is stored, or that follows from one without weights."""
        layout, found = self.program.layout, {INPUT: x}
        stored = set(layout.stored_activations)
        for layer in self.program.network:
            if layer.name in stored:
                found[layer.name] = layout.read_activation(self.image, layer.name)
            elif not isinstance(layer, MacLayer) and layer.inputs[0] in found:
                found[layer.name] = pass_forward(layer, found[layer.inputs[0]])
        return found

    def _errors(self) -> dict[str, Codes]:
        """The errors that are stored."""
        layout = self.program.layout
        return {name: layout.read_error(self.image, name) for name in layout.stored_errors}


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
    network, errors = program.network, _measured_errors(program)
    for name, register in registers.items():
        kind, _, item = name.partition("/")
        tensor = item if kind == "ff" else errors.get(name)
        if tensor is not None:
            bits = trace.forward_bits if kind == "ff" else trace.error_bits
            scales = table.errors[tensor] if kind != "ff" else table.forward[item] if item in table.forward else table.outputs[item]
            bits[tensor] = register.magnitude_bits, scales.accumulator_frac
            elements = program.batch * int(np.prod(network.shapes[tensor.partition("@")[0]]))
            trace.saturated[f"{'activation' if kind == 'ff' else 'error'}/{tensor}"] = register.saturated / elements
        if register.overflow:
            phase = "wg" if kind == "update" else "ng" if kind == "loss" else kind
            trace.overflows.add(f"{item.rpartition('.')[0] if kind == 'update' else item}/{phase}")
    return trace


def _measured_errors(program: Program) -> dict[str, str]:
    """Range register -> the error that it measures, as the step table names it."""
    graph = program.layout.graph
    found = {f"loss/{graph.network.logits}": graph.network.logits}
    for back in graph.backward:
        found |= {f"sum/{item.tensor}": item.tensor for item in back.sums}
        if isinstance(back.step, Stage):
            if back.step.sink is not None:
                found[f"ng/{back.step.name}"] = back.step.sink.tensor
        else:
            found |= {f"ng/{back.step.name}": sent.name for sent in back.sent if sent.is_new}
    return found


def read_state(program: Program, image: Image, state: State) -> None:
    """Copy stored weights, momenta and running statistics from the image into `state`."""
    for layer in program.network.batch_norms:
        state.running[layer.name] = program.layout.read_running(image, layer.name)
    for name, parameter in state.parameters.items():
        found = program.layout.read_parameter(image, name)
        parameter.stored[...], parameter.momentum[...] = found.stored, found.momentum
