"""UPDATE of the weights: from the gradients of a tile to stored weights, momenta and operands, while the next tile computes."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import ALL_PES, Context
from fixgrad.compiler.kernels import Runs
from fixgrad.compiler.layout import BIAS_BYTES, ELEMENT_BYTES, stored_bytes
from fixgrad.compiler.resources import Waits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.stream import Label, Template
from fixgrad.compiler.tiling import Split
from fixgrad.machine.instructions import Unit
from fixgrad.network import Recipe

Ints = NDArray[np.int64]
#: Rounds of UPDATEs (one for each group) that are issued behind a chunk. More would fill the queues in front of the groups'
#: update units, and what stands behind them in the program could not be dispatched.
ROUNDS_PER_CHUNK = 4


class Update(NamedTuple):
    """Consecutive parameters: kernels [start, start + kernels) of the layer, from gradient `gradient` of queue `queue` on.

    As int64 arrays of one length: several of them.
    """

    queue: Ints
    start: Ints
    kernels: Ints
    gradient: Ints


def updates_of(runs: Runs) -> Update:
    """The entries of a tile, queue by queue, as runs that are consecutive both in memory and in the gradients of their queue."""
    order = np.argsort(runs.queue, kind="stable")
    queue, start, entries = (column[order] for column in (runs.queue, runs.start, runs.entries))
    new = np.ones(len(queue), np.bool_)
    new[1:] = (queue[1:] != queue[:-1]) | (start[1:] != start[:-1] + entries[:-1])
    first = np.flatnonzero(new)
    sums = np.append(0, np.cumsum(entries))
    kernels = np.diff(sums[np.append(first, len(entries))])
    return Update(queue[first], start[first], kernels, _before(queue[first], kernels))


def _before(owners: Ints, values: Ints) -> Ints:
    """The sum of the values before each one that have the same owner; `owners` ascend."""
    before = np.cumsum(values) - values
    of_first: Ints = before[np.searchsorted(owners, owners)]
    return before - of_first


@dataclass(slots=True)
class Updates:
    """The UPDATEs of one stage, issued a few at a time. Every group gets as many, since their completions are counted alike."""

    context: Context
    stage: Stage
    split: Split
    recipe: Recipe
    _rounds: deque[tuple[Waits, Template]] = field(default_factory=deque)

    def collect(self, runs: Runs, base: int) -> Waits:
        """Take the updates of a tile whose COMPUTEs have been issued; returns what will have freed its gradients.

        Args:
            base: first gradient of the tile in the gradient memories.
        """
        groups = self.context.machine.groups
        updates = updates_of(runs)
        group = updates.queue // self.split.channels
        place = _before(group, np.ones_like(group))
        rounds = int(place.max(initial=-1)) + 1
        columns = np.zeros((rounds, groups, len(updates)), np.int64)
        columns[place, group] = np.stack(updates, axis=1)
        fields = {"group": np.tile(np.arange(groups), rounds), **self._fields(columns.reshape(-1, len(updates)), base)}
        templates = self.context.stream.templates("UPDATE", self._label, self.stage.index, fields, [groups] * rounds)
        waits = Waits(compute=self.context.stream.issued(Unit.COMPUTE))
        self._rounds.extend((waits, template) for template in templates)
        return Waits(update=self.context.updates() + len(self._rounds))

    @property
    def _label(self) -> Label:
        return Label(self.stage.name, "update")

    def issue(self, rounds: int | None = None) -> None:
        """Emit some rounds, or all that are left."""
        for _ in range(len(self._rounds) if rounds is None else min(rounds, len(self._rounds))):
            param, loaded = self.context.use_param(f"update/{self.stage.name}.weight", self._label)
            waits, template = self._rounds.popleft()
            self.context.stream.use(template, waits.join(loaded), {"param": param})

    def _fields(self, updates: Ints, base: int) -> dict[str, Ints]:
        """Fields of updates, rows of `Update`; those without kernels, which only complete, leave all of them 0."""
        queue, start, kernels, gradient = updates.T
        stage, layout, recipe = self.stage, self.context.layout, self.recipe
        name, taps = stage.name, stage.taps
        wide, momentum = stored_bytes(recipe.stored_bits), stored_bytes(recipe.momentum_bits)
        fields = {
            "pe": queue % self.split.channels if self.split.channels > 1 else ALL_PES,
            "gradient_base": base + gradient * taps,
            "count": kernels * taps,
            "stored": layout.address(f"stored/{name}") + wide * taps * start,
            "momentum": layout.address(f"momentum/{name}") + momentum * taps * start,
            "operand": layout.address(f"operand/{name}") + taps * start,
            "element": layout.address(f"element/{name}") + ELEMENT_BYTES * start,
            "taps": taps,
            "stored_bytes": wide,
            "momentum_bytes": momentum,
            "operands": 1,
            "statistics": self.context.register(f"update/{name}.weight"),
        }
        return {item: np.where(kernels > 0, values, 0) for item, values in fields.items()}


def update_biases(context: Context, stage: Stage) -> None:
    """The biases of a stage, from the sums that POST and LOSS left in memory."""
    entry = f"update/{stage.name}.bias"
    update_vector(context, Label(stage.name, "update"), stage.index, entry, stage.name, stage.layer.out_channels)


def update_vector(context: Context, label: Label, number: int, entry: str, region: str, count: int) -> None:
    """Each group updates its share of a parameter of one element a channel, whose gradients POST's instructions left in memory.

    Args:
        number: of the layer.
        entry: name in the step table and among the range registers.
        region: what the parameter's regions are named by.
        count: elements.
    """
    layout = context.layout
    share = -(-count // context.machine.groups)
    param, loaded = context.use_param(entry, label)
    waits = loaded.join(Waits(post=context.stream.issued(Unit.POST)))
    for group in range(context.machine.groups):
        first = min(group * share, count)
        fields = {
            "group": group,
            "from_memory": 1,
            "count": min(share, count - first),
            "gradient_source": layout.address(f"bias_gradient/{region}") + BIAS_BYTES * first,
            "stored": layout.address(f"bias/{region}") + BIAS_BYTES * first,
            "momentum": layout.address(f"bias_momentum/{region}") + BIAS_BYTES * first,
            "element": layout.address(f"bias_element/{region}") + ELEMENT_BYTES * first,
            "taps": 1,
            "stored_bytes": BIAS_BYTES,
            "momentum_bytes": BIAS_BYTES,
            "param": param,
            "statistics": context.register(entry),
        }
        context.stream.emit("UPDATE", label, number, waits, fields)
