"""Numbers of range registers: where a step has more than the machine, they are stored and used again.

A bank is as many registers as the machine has. Whatever a stage or node measures lies in one bank, and banks are used one after
the other: before the first register of a bank is used, those of the bank before are stored.
"""

from collections.abc import Sequence

from fixgrad.compiler.graph import Graph, Node
from fixgrad.compiler.layout import makes_error, register_names
from fixgrad.machine.encoding import layout as fields_of

#: Registers of a machine: as many as the field of an instruction can name.
BANK = fields_of("POST")["statistics"].high + 1


def register_groups(graph: Graph) -> list[list[str]]:
    """Names of registers that must lie in one bank, in the order in which a training step uses them: see `lower_step`."""
    groups = [[f"ff/{step.name}"] for step in graph.steps if step.layer.rescales]
    current, waiting = [f"loss/{graph.network.logits}"], list[str]()
    for back in graph.backward:
        current += [f"sum/{item.tensor}" for item in back.sums]
        own = [f"ng/{back.step.name}"] if makes_error(back) else []
        updates = [f"update/{name}" for name in back.step.layer.parameters]
        if isinstance(back.step, Node):
            current += own + updates
        else:
            groups.append(current + waiting)
            current, waiting = own, updates
    return [*groups, current + waiting]


def register_numbers(graph: Graph) -> dict[str, int]:
    """Number of each register of a training step: bank by bank; where one bank is enough, in the order of their names."""
    names = register_names(graph)
    if len(names) <= BANK:
        return {name: number for number, name in enumerate(names)}
    return _packed(register_groups(graph))


def _packed(groups: Sequence[Sequence[str]]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    first = 0
    for group in groups:
        if first % BANK + len(group) > BANK:
            first = (first // BANK + 1) * BANK
        numbers |= {name: first + place for place, name in enumerate(group)}
        first += len(group)
    return numbers
