"""Do several executors compute the same bits? Every tensor of every step is compared with `==`.

Tensors are compared in the order in which a step makes them, so the first difference is where things went wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.machine.encoding import disassemble
from fixgrad.network import INPUT, MacLayer, MaxPool2d, Network, State, Trace
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.simulate.functional.executor import FunctionalExecutor

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
    """

    name: str
    step: Callable[[Values, Values], Trace]
    state: Callable[[], State]
    operand: Callable[[str], Values] | None = None
    instruction_of: Callable[[str, str, tuple[int, ...]], str | None] = lambda kind, name, place: None


def reference_subject(executor: ReferenceExecutor) -> Subject:
    """The NumPy reference."""
    return Subject("reference", executor.step, lambda: executor.state)


def functional_subject(executor: FunctionalExecutor) -> Subject:
    """The functional simulator, which can name instructions."""

    def instruction_of(kind: str, name: str, place: tuple[int, ...]) -> str | None:
        index = executor.instruction_of(kind, name, place)
        return None if index is None else f"{index}: {disassemble(executor.program.instructions[index])}"

    def operand(name: str) -> Values:
        codes = executor.program.layout.read_parameter(executor.image, name).operand
        assert codes is not None
        return codes

    return Subject("functional", executor.step, lambda: executor.state, operand, instruction_of)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first difference.

    Attributes:
        step: of the comparison, from 0.
        layer, phase: where.
        kind: ``activation``, ``error``, ``gradient``, ``momentum``, ``stored``, ``operand`` or ``statistic``.
        tensor: its name.
        index: of the element in the tensor (empty for a statistic).
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


def verify(network: Network, subjects: Sequence[Subject], batches: Iterable[Batch]) -> Verification:
    """Train all subjects on the same batches; stop at the first difference.

    Args:
        subjects: two or more, in the same state; the first is the one that the others are held against.
        batches: of each step: codes [batch, ...] and labels [batch].
    """
    if len(subjects) < 2:
        raise UsageError(f"{len(subjects)} executor given: a comparison needs at least 2")
    result = Verification(tuple(subject.name for subject in subjects))
    for step, (x, labels) in enumerate(batches):
        expected = _outcome(subjects[0], x, labels)
        for subject in subjects[1:]:
            got = _outcome(subject, x, labels)
            result.first_mismatch = _compare(network, step, expected, got, (subjects[0], subject), result)
            if not result.equal:
                return result
        result.steps += 1
    return result


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
    for item in _items(network, expected.trace):
        result.compared[item.kind] = result.compared.get(item.kind, 0) + 1
        want, have = (np.asarray(item.get(outcome)) for outcome in (expected, got))
        if want.shape == have.shape and (want == have).all():
            continue
        index = _first(want, have)
        names = pair[0].name, pair[1].name
        alike = want.shape == have.shape
        wanted, found = (int(want[index]), int(have[index])) if alike else (want.size, have.size)
        instruction = _instruction(pair[1], network, item, index)
        return Mismatch(step, item.layer, item.phase, item.kind, item.tensor, index, names, wanted, found, instruction)
    return None


def _first(want: Values, have: Values) -> tuple[int, ...]:
    """Index of the first difference; of the first element where the shapes differ."""
    if want.shape != have.shape:
        return (0,) * want.ndim
    return tuple(int(axis) for axis in np.argwhere(want != have)[0]) if want.ndim else ()


def _items(network: Network, trace: Trace) -> Iterator[_Item]:
    """Everything that a step makes, in the order in which it is made."""
    for layer in network:
        yield _Item(layer.name, "ff", "activation", layer.name, partial(_activation, layer.name))
        if isinstance(layer, MacLayer):
            yield from _statistics(layer.name, "ff", "forward_bits", f"activation/{layer.name}")
    yield from _error(network.logits, "loss", network.logits)
    for layer in reversed(network.layers):
        if isinstance(layer, MacLayer):
            for name in layer.parameters:
                yield from _parameter(layer.name, name)
        if layer.inputs[0] in trace.errors:
            yield from _error(layer.name, "ng", layer.inputs[0])
    for layer in network.mac_layers:
        for phase in ("ff", "ng", "wg"):
            flag = f"{layer.name}/{phase}"
            yield _Item(layer.name, phase, "statistic", f"overflow/{flag}", partial(_overflowed, flag))


def _activation(name: str, outcome: _Outcome) -> Values:
    return outcome.trace.activations[name]


def _overflowed(flag: str, outcome: _Outcome) -> bool:
    return flag in outcome.trace.overflows


def _error(layer: str, phase: str, tensor: str) -> Iterator[_Item]:
    yield _Item(layer, phase, "error", tensor, lambda o: o.trace.errors[tensor])
    yield from _statistics(layer, phase, "error_bits", f"error/{tensor}")


def _statistics(layer: str, phase: str, bits: str, saturated: str) -> Iterator[_Item]:
    tensor = saturated.partition("/")[2]
    yield _Item(layer, phase, "statistic", f"{bits}/{tensor}", lambda o: getattr(o.trace, bits).get(tensor, (0, 0))[0])
    yield _Item(layer, phase, "statistic", f"saturated/{tensor}", lambda o: _share(o.trace.saturated.get(saturated, 0.0)))


def _share(share: float) -> int:
    """A share of saturated elements in parts of 2**-40: equal shares of equal counts are equal."""
    return round(share * (1 << 40))


def _parameter(layer: str, name: str) -> Iterator[_Item]:
    yield _Item(layer, "wg", "gradient", name, lambda o: o.trace.gradients[name])
    yield _Item(layer, "update", "momentum", name, lambda o: o.state.parameters[name].momentum)
    yield _Item(layer, "update", "stored", name, lambda o: o.state.parameters[name].stored)
    if not name.endswith(".bias"):
        yield _Item(layer, "update", "operand", name, lambda o: o.operand(name))
    yield _Item(layer, "update", "statistic", f"magnitude/{name}", lambda o: o.state.parameters[name].magnitude)


def _instruction(subject: Subject, network: Network, item: _Item, index: tuple[int, ...]) -> str | None:
    match item.kind:
        case "gradient" | "momentum" | "stored" | "operand":
            place = (int(np.ravel_multi_index(index, network.parameters[item.tensor])),)
            return subject.instruction_of("parameter", item.tensor, place)
        case "activation":
            return subject.instruction_of("activation", *_made_forward(network, item.tensor, _map_place(network, item.tensor, index)))
        case "error":
            return subject.instruction_of("error", *_made_backward(network, item.tensor, _map_place(network, item.tensor, index)))
    return None


def _map_place(network: Network, tensor: str, index: tuple[int, ...]) -> tuple[int, ...]:
    """(image, channel, row, column) of an element, in the map that a vector was flattened from."""
    while len(network.shapes[tensor]) == 1 and not isinstance(network.layer(tensor), MacLayer):
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
