"""UPDATE of the weights: from the gradients of a tile to stored weights, momenta and operands, while the next tile computes."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from fixgrad.compiler.context import ALL_PES, Context
from fixgrad.compiler.kernels import Runs
from fixgrad.compiler.layout import BIAS_BYTES, ELEMENT_BYTES, stored_bytes
from fixgrad.compiler.resources import Waits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.stream import Label
from fixgrad.compiler.tiling import Split
from fixgrad.machine.instructions import Unit
from fixgrad.network import Recipe

#: Rounds of UPDATEs (one for each group) that are issued behind a chunk. More would fill the queues in front of the groups'
#: update units, and what stands behind them in the program could not be dispatched.
ROUNDS_PER_CHUNK = 4


class Update(NamedTuple):
    """Consecutive parameters: kernels [start, start + kernels) of the layer, from gradient `gradient` of queue `queue` on."""

    queue: int
    start: int
    kernels: int
    gradient: int


def updates_of(runs: Runs) -> list[Update]:
    """The entries of a tile as runs that are consecutive both in memory and in the gradients of their queue."""
    found: dict[int, list[Update]] = {}
    for queue, start, entries in zip(runs.queue.tolist(), runs.start.tolist(), runs.entries.tolist(), strict=True):
        taken = found.setdefault(queue, [])
        last = taken[-1] if taken else Update(queue, start, 0, 0)
        if last.start + last.kernels == start:
            taken[-1:] = [last._replace(kernels=last.kernels + entries)]
        else:
            taken.append(Update(queue, start, entries, last.gradient + last.kernels))
    return [update for taken in found.values() for update in taken]


@dataclass(slots=True)
class Updates:
    """The UPDATEs of one stage, issued a few at a time. Every group gets as many, since their completions are counted alike."""

    context: Context
    stage: Stage
    split: Split
    recipe: Recipe
    _rounds: deque[tuple[Waits, list[dict[str, int]]]] = field(default_factory=deque)

    def collect(self, runs: Runs, base: int) -> Waits:
        """Take the updates of a tile whose COMPUTEs have been issued; returns what will have freed its gradients.

        Args:
            base: first gradient of the tile in the gradient memories.
        """
        by_group: list[list[Update]] = [[] for _ in range(self.context.machine.groups)]
        for update in updates_of(runs):
            by_group[update.queue // self.split.channels].append(update)
        waits = Waits(compute=self.context.stream.issued(Unit.COMPUTE))
        for position in range(max(map(len, by_group))):
            fields = [
                {"group": group} | (self._fields(queue[position], base) if position < len(queue) else {})
                for group, queue in enumerate(by_group)
            ]
            self._rounds.append((waits, fields))
        return Waits(update=self.context.updates() + len(self._rounds))

    def issue(self, rounds: int | None = None) -> None:
        """Emit some rounds, or all that are left."""
        label = Label(self.stage.name, "update")
        for _ in range(len(self._rounds) if rounds is None else min(rounds, len(self._rounds))):
            param, loaded = self.context.use_param(f"update/{self.stage.name}.weight", label)
            waits, round_fields = self._rounds.popleft()
            for fields in round_fields:
                self.context.stream.emit("UPDATE", label, self.stage.index, waits.join(loaded), {"param": param, **fields})

    def _fields(self, update: Update, base: int) -> dict[str, int]:
        stage, layout, recipe = self.stage, self.context.layout, self.recipe
        name, taps = stage.name, stage.taps
        wide, momentum = stored_bytes(recipe.stored_bits), stored_bytes(recipe.momentum_bits)
        return {
            "pe": update.queue % self.split.channels if self.split.channels > 1 else ALL_PES,
            "gradient_base": base + update.gradient * taps,
            "count": update.kernels * taps,
            "stored": layout.address(f"stored/{name}") + wide * taps * update.start,
            "momentum": layout.address(f"momentum/{name}") + momentum * taps * update.start,
            "operand": layout.address(f"operand/{name}") + taps * update.start,
            "element": layout.address(f"element/{name}") + ELEMENT_BYTES * update.start,
            "taps": taps,
            "stored_bytes": wide,
            "momentum_bytes": momentum,
            "operands": 1,
            "statistics": layout.registers[f"update/{name}.weight"],
        }


def update_biases(context: Context, stage: Stage) -> None:
    """Each group updates its share of the biases, from the sums that POST and LOSS left in memory."""
    name, outputs, layout = stage.name, stage.layer.out_channels, context.layout
    share = -(-outputs // context.machine.groups)
    entry, label = f"update/{name}.bias", Label(name, "update")
    param, loaded = context.use_param(entry, label)
    waits = loaded.join(Waits(post=context.stream.issued(Unit.POST)))
    for group in range(context.machine.groups):
        first = min(group * share, outputs)
        fields = {
            "group": group,
            "from_memory": 1,
            "count": min(share, outputs - first),
            "gradient_source": layout.address(f"bias_gradient/{name}") + BIAS_BYTES * first,
            "stored": layout.address(f"bias/{name}") + BIAS_BYTES * first,
            "momentum": layout.address(f"bias_momentum/{name}") + BIAS_BYTES * first,
            "element": layout.address(f"bias_element/{name}") + ELEMENT_BYTES * first,
            "taps": 1,
            "stored_bytes": BIAS_BYTES,
            "momentum_bytes": BIAS_BYTES,
            "param": param,
            "statistics": layout.registers[entry],
        }
        context.stream.emit("UPDATE", label, stage.index, waits, fields)
