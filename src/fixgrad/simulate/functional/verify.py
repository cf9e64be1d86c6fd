"""Do several executors compute the same bits? Every tensor of every step is compared with `==`.

Tensors are compared in the order in which a step makes them, so the first difference is where things went wrong. Where two
executors have a memory image, that is compared byte by byte besides: it also holds what no tensor shows.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.errors import UsageError
from fixgrad.machine.encoding import disassemble
from fixgrad.network import INPUT, BatchNorm, Flatten, MacLayer, MaxPool2d, Network, ReLU, State, Trace
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.simulate.functional.executor import FunctionalExecutor
from fixgrad.simulate.host import HostExecutor

Values = NDArray[np.integer[Any]]
Batch = tuple[Values, Values]


@dataclass(frozen=True)
class Subject:
    """An executor under comparison.

    Attributes:
        name: for the report.
        step: one training step on codes and labels; returns every tensor.
        state: the state after it.
        operand: 8-bit codes of a weight for the next step, where they are kept apart from the state.
        instruction_of: (kind, tensor, place) -> the instruction that wrote an element, as text; None where there is none.
        memory: the program and the memory after the last step, where there is one.
        summary: what is to be said of the last step.
    """

    name: str
    step: Callable[[Values, Values], Trace]
    state: Callable[[], State]
    operand: Callable[[str], Values] | None = None
    instruction_of: Callable[[str, str, tuple[int, ...]], str | None] = lambda kind, name, place: None
    memory: Callable[[], tuple[Program, NDArray[np.uint8]]] | None = None
    summary: Callable[[], str] = lambda: ""


def reference_subject(executor: ReferenceExecutor) -> Subject:
    """The NumPy reference."""
    return Subject("reference", executor.step, lambda: executor.state)


def functional_subject(executor: FunctionalExecutor) -> Subject:
    """The functional simulator, which can name instructions."""

    def instruction_of(kind: str, name: str, place: tuple[int, ...]) -> str | None:
        index = executor.instruction_of(kind, name, place)
        return None if index is None else f"{index}: {disassemble(executor.program.instructions[index])}"

    return replace(device_subject("functional", executor), instruction_of=instruction_of, summary=lambda: "")


def device_subject(name: str, executor: HostExecutor) -> Subject:
    """A device, of whose steps only memory is known."""

    def operand(parameter: str) -> Values:
        codes = executor.program.layout.read_parameter(executor.image, parameter).operand
        assert codes is not None
        return codes

    def summary() -> str:
        cycles, seconds = executor.outcome.cycles, executor.outcome.seconds
        return f"{cycles:,} cycles, {cycles / seconds / 1000:,.1f} thousand a second" if cycles and seconds else ""

    def memory() -> tuple[Program, NDArray[np.uint8]]:
        return executor.program, executor.image

    return Subject(name, executor.step, lambda: executor.state, operand, memory=memory, summary=summary)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first difference.

    Attributes:
        step: of the comparison, from 0.
        layer, phase: where.
        kind: ``activation``, ``error``, ``gradient``, ``momentum``, ``stored``, ``operand``, ``running``, ``statistic`` or
            ``memory``.
        tensor: its name; of memory the region's.
        index: of the element in the tensor (empty for a statistic); of memory the byte in the region.
        executors: the two that differ.
        expected, got: their values, in that order.
        instruction: that wrote the element, if the second executor knows.
    """

    step: int
    layer: str
    phase: str
    kind: str
    tensor: str
    index: tuple[int, ...]
    executors: tuple[str, str]
    expected: int
    got: int
    instruction: str | None

    def __str__(self) -> str:
        """One line for people, two with the instruction."""
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        text = (
            f"step {self.step}, {self.layer} {self.phase}: {self.kind} of {self.tensor}{place} is {self.got} in "
            f"{self.executors[1]}, expected {self.expected} as in {self.executors[0]}"
        )
        return text if self.instruction is None else f"{text}\nwritten by instruction {self.instruction}"


@dataclass(slots=True)
class Verification:
    """The result: `compared` counts tensors by kind, over all steps and pairs of executors."""

    executors: tuple[str, ...]
    steps: int = 0
    compared: dict[str, int] = field(default_factory=dict)
    first_mismatch: Mismatch | None = None

    @property
    def equal(self) -> bool:
        """Whether no difference was found."""
        return self.first_mismatch is None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "equal": self.equal,
            "executors": list(self.executors),
            "steps": self.steps,
            "compared": dict(self.compared),
            "first_mismatch": None if self.first_mismatch is None else asdict(self.first_mismatch),
        }


#: Told after each subject's step: number of the step, who made it, seconds.
Progress = Callable[[int, Subject, float], None]


def verify(
    network: Network, subjects: Sequence[Subject], batches: Iterable[Batch], progress: Progress | None = None
) -> Verification:
    """Train all subjects on the same batches; stop at the first difference.

    Args:
        subjects: two or more, in the same state; the first is the one that the others are held against. Memory is held
            against that of the first subject that has one.
        batches: of each step: codes [batch, ...] and labels [batch].
        progress: see `Progress`.
    """
    if len(subjects) < 2:
        raise UsageError(f"{len(subjects)} executor given: a comparison needs at least 2")
    result = Verification(tuple(subject.name for subject in subjects))
    for step, (x, labels) in enumerate(batches):
        outcomes: list[tuple[Subject, _Outcome]] = []
        for subject in subjects:
            start = time.perf_counter()
            outcomes.append((subject, _outcome(subject, x, labels)))
            if progress is not None:
                progress(step, subject, time.perf_counter() - start)
            result.first_mismatch = _compare_last(network, step, outcomes, result)
            if not result.equal:
                return result
        result.steps += 1
    return result


def _compare_last(
    network: Network, step: int, outcomes: list[tuple["Subject", "_Outcome"]], result: Verification
) -> Mismatch | None:
    """The subject that came last against those before it."""
    *before, (subject, got) = outcomes
    if not before:
        return None
    first, expected = before[0]
    found = _compare(network, step, expected, got, (first, subject), result)
    with_memory = [each for each, _ in before if each.memory is not None]
    if found is None and subject.memory is not None and with_memory:
        found = _compare_memory(step, with_memory[0], subject, result)
    if found is not None and found.instruction is None:
        found = replace(found, instruction=_known_instruction(network, found, [each for each, _ in before]))
    return found


class _Outcome(NamedTuple):
    trace: Trace
    state: State
    operand: Callable[[str], Values]


def _outcome(subject: Subject, x: Values, labels: Values) -> _Outcome:
    trace = subject.step(x, labels)
    state = subject.state()
    return _Outcome(trace, state, subject.operand or (lambda name: state.parameters[name].operand()))


class _Item(NamedTuple):
    """One tensor (or statistic) of a step."""

    layer: str
    phase: str
    kind: str
    tensor: str
    get: Callable[[_Outcome], Any]


def _compare(
    network: Network, step: int, expected: _Outcome, got: _Outcome, pair: tuple[Subject, Subject], result: Verification
) -> Mismatch | None:
    for item in _items(network, expected.trace.errors.keys() | got.trace.errors.keys()):
        found_there, found_here = item.get(expected), item.get(got)
        if found_there is None or found_here is None:  # an executor that sees less
            continue
        result.compared[item.kind] = result.compared.get(item.kind, 0) + 1
        want, have = np.asarray(found_there), np.asarray(found_here)
        if want.shape == have.shape and (want == have).all():
            continue
        index = _first(want, have)
        names = pair[0].name, pair[1].name
        alike = want.shape == have.shape
        wanted, found = (int(want[index]), int(have[index])) if alike else (want.size, have.size)
        instruction = _instruction(pair[1], network, item.kind, item.tensor, index)
        return Mismatch(step, item.layer, item.phase, item.kind, item.tensor, index, names, wanted, found, instruction)
    return None


def _first(want: Values, have: Values) -> tuple[int, ...]:
    """Index of the first difference; of the first element where the shapes differ."""
    if want.shape != have.shape:
        return (0,) * want.ndim
    return tuple(int(axis) for axis in np.argwhere(want != have)[0]) if want.ndim else ()


def _items(network: Network, errors: Set[str]) -> Iterator[_Item]:
    """Everything that a step makes, in the order in which it is made."""
    for layer in network:
        yield _Item(layer.name, "ff", "activation", layer.name, partial(_activation, layer.name))
        if layer.rescales:
            yield from _statistics(layer.name, "ff", "forward_bits", f"activation/{layer.name}")
    yield from _error(network.logits, "loss", network.logits)
    for layer in reversed(network.layers):
        if layer.name in errors and len(network.readers[layer.name]) > 1:
            yield from _error(layer.name, "ng", layer.name)
        for name in layer.parameters:
            yield from _parameter(layer.name, name)
        if isinstance(layer, BatchNorm):
            yield from _running(layer.name)
        for name in dict.fromkeys(network.error_name(tensor, layer) for tensor in layer.inputs):
            if name in errors:
                yield from _error(layer.name, "ng", name)
    for layer in network.mac_layers:
        for phase in ("ff", "ng", "wg"):
            flag = f"{layer.name}/{phase}"
            yield _Item(layer.name, phase, "statistic", f"overflow/{flag}", partial(_overflowed, flag))


def _activation(name: str, outcome: _Outcome) -> Values | None:
    return outcome.trace.activations.get(name)


def _overflowed(flag: str, outcome: _Outcome) -> bool:
    return flag in outcome.trace.overflows


def _error(layer: str, phase: str, tensor: str) -> Iterator[_Item]:
    yield _Item(layer, phase, "error", tensor, lambda o: o.trace.errors.get(tensor))
    yield from _statistics(layer, phase, "error_bits", f"error/{tensor}")


def _statistics(layer: str, phase: str, bits: str, saturated: str) -> Iterator[_Item]:
    tensor = saturated.partition("/")[2]
    yield _Item(layer, phase, "statistic", f"{bits}/{tensor}", lambda o: getattr(o.trace, bits).get(tensor, (0, 0))[0])
    yield _Item(layer, phase, "statistic", f"saturated/{tensor}", lambda o: _share(o.trace.saturated.get(saturated, 0.0)))


def _share(share: float) -> int:
    """A share of saturated elements in parts of 2**-40: equal shares of equal counts are equal."""
    return round(share * (1 << 40))


def _parameter(layer: str, name: str) -> Iterator[_Item]:
    yield _Item(layer, "wg", "gradient", name, lambda o: o.trace.gradients.get(name))
    yield _Item(layer, "update", "momentum", name, lambda o: o.state.parameters[name].momentum)
    yield _Item(layer, "update", "stored", name, lambda o: o.state.parameters[name].stored)
    if name.endswith(".weight"):
        yield _Item(layer, "update", "operand", name, lambda o: o.operand(name))
    yield _Item(layer, "update", "statistic", f"magnitude/{name}", lambda o: o.state.parameters[name].magnitude)


def _running(layer: str) -> Iterator[_Item]:
    """The running statistics of a normalisation."""
    yield _Item(layer, "ff", "running", f"{layer}.running_mean", lambda o: o.state.running[layer].mean)
    yield _Item(layer, "ff", "running", f"{layer}.running_variance", lambda o: o.state.running[layer].variance)


def _compare_memory(step: int, first: Subject, second: Subject, result: Verification) -> Mismatch | None:
    assert first.memory is not None
    assert second.memory is not None
    (program, expected), (_, got) = first.memory(), second.memory()
    result.compared["memory"] = result.compared.get("memory", 0) + len(expected)
    if np.array_equal(expected, got):
        return None
    address = int(np.flatnonzero(expected != got)[0]) if len(expected) == len(got) else min(len(expected), len(got))
    region = program.layout.table.region_at(address)
    names, values = (first.name, second.name), (int(expected[address]), int(got[address]))
    if region is None:
        return Mismatch(step, "no layer", "no phase", "memory", "no region", (address,), names, *values, None)
    content, _, tensor = region.name.partition("/")
    place = (address - region.address,)
    return Mismatch(step, tensor or "all layers", _PHASES.get(content, "host"), "memory", region.name, place, names, *values, None)


#: What writes a region of memory.
_PHASES = {
    "activation": "ff", "argmax": "ff", "error": "ng", "bias_gradient": "ng", "statistics": "update",
    "operand": "update", "bias": "update", "stored": "update", "momentum": "update", "bias_momentum": "update",
}  # fmt: skip


def _known_instruction(network: Network, found: Mismatch, subjects: Sequence[Subject]) -> str | None:
    """The instruction that wrote an element, by the first executor that knows."""
    texts = (_instruction(each, network, found.kind, found.tensor, found.index) for each in subjects)
    return next((text for text in texts if text is not None), None)


def _instruction(subject: Subject, network: Network, kind: str, tensor: str, index: tuple[int, ...]) -> str | None:
    match kind:
        case "gradient" | "momentum" | "stored" | "operand":
            place = (int(np.ravel_multi_index(index, network.parameters[tensor])),)
            return subject.instruction_of("parameter", tensor, place)
        case "activation" | "error" if not network.is_chain:
            return subject.instruction_of(kind, *_in_graph(network, tensor, index))
        case "activation":
            return subject.instruction_of("activation", *_made_forward(network, tensor, _map_place(network, tensor, index)))
        case "error":
            return subject.instruction_of("error", *_made_backward(network, tensor, _map_place(network, tensor, index)))
    return None


def _in_graph(network: Network, tensor: str, index: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The tensor of a graph, before flattening, and the element there."""
    own = tensor.partition("@")[0]
    place = _map_place(network, own, index)
    while isinstance(layer := network.layer(own), Flatten):
        own = layer.inputs[0]
    return (tensor if "@" in tensor else own), place


def _map_place(network: Network, tensor: str, index: tuple[int, ...]) -> tuple[int, ...]:
    """(image, channel, row, column) of an element, in the map that a vector was flattened from."""
    while len(network.shapes[tensor]) == 1 and isinstance(network.layer(tensor), Flatten | ReLU):
        tensor = network.layer(tensor).inputs[0]
    if len(index) == 4:
        return index
    inside = np.unravel_index(index[1], (*network.shapes[tensor], 1, 1)[:3])
    return (index[0], *(int(axis) for axis in inside))


def _made_forward(network: Network, tensor: str, place: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The layer whose POST made an element of an activation, and the element before pooling."""
    while tensor != INPUT and not isinstance(layer := network.layer(tensor), MacLayer):
        if isinstance(layer, MaxPool2d):
            place = (*place[:2], place[2] * layer.window[0], place[3] * layer.window[1])
        tensor = layer.inputs[0]
    return tensor, place


def _made_backward(network: Network, tensor: str, place: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The tensor whose error NG (or LOSS) made, and the element there: behind the pooling that scattered it."""
    for layer in network.layers:
        if layer.inputs[0] != tensor:
            continue
        if isinstance(layer, MacLayer):
            break
        if isinstance(layer, MaxPool2d):
            place = (*place[:2], place[2] // layer.window[0], place[3] // layer.window[1])
        tensor = layer.name
    return tensor, place
