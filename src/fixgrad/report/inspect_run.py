"""What a run's numbers look like, layer by layer: saturation, ranges, head-room, what is dead. All of it measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ldexp, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError
from fixgrad.network import MacLayer, Network
from fixgrad.numbers import bit_length
from fixgrad.train.checkpoint import Checkpoint
from fixgrad.train.epoch_tally import ACCUMULATOR_MAGNITUDE_BITS
from fixgrad.train.run_folder import RunFolder

#: Largest magnitude of an operand code.
OPERAND = 127
#: A tensor of which this share saturates in an epoch is worth a word.
NOTABLE_SATURATION = 0.01


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """The output of a layer, or its error, over all epochs that were recorded.

    Attributes:
        saturated: share of the elements that saturated in the last epoch, 0 to 1.
        worst_epoch: the largest such share of an epoch.
        worst_step: the largest share of a single step.
        exponents: the smallest and the largest exponent measured: values were below 2^E; None: nothing but zeros.
        last_exponents: the same of the last epoch.
        headroom: bits of the 32-bit accumulators that were never used; below 0 is impossible, 0 is the edge.
    """

    saturated: float
    worst_epoch: float
    worst_step: float
    exponents: tuple[int, int] | None
    last_exponents: tuple[int, int] | None
    headroom: int


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """One layer.

    Attributes:
        density: share of its kernels or elements that is alive; None without weights.
        dead_outputs, dead_inputs: channels without a live kernel.
        zero_outputs: live output channels whose weights are all 0.
        largest_weight: magnitude of the largest stored weight, as a number.
        stored_bits_free: bits between it and the end of the stored range.
        activation, error: of its output; None where it has no scale of its own.
        wg_headroom: bits that the accumulators of WG have left at least, by the number of products; None without weights.
        overflows: phases whose accumulators have left 32 bits: ``ff``, ``ng``, ``wg``.
    """

    name: str
    kind: str
    density: float | None
    dead_outputs: int
    dead_inputs: int
    zero_outputs: int
    largest_weight: float | None
    stored_bits_free: int | None
    activation: TensorCheck | None
    error: TensorCheck | None
    wg_headroom: int | None
    overflows: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is wrong, and what to try; empty where all is well."""
        found = [f"{phase.upper()} accumulators left 32 bits: use a smaller batch or fewer inputs" for phase in self.overflows]
        for what, check in (("activations", self.activation), ("errors", self.error)):
            if check is None:
                continue
            if check.exponents is None:
                found.append(f"all {what} are 0: the layer is dead; lower --lr, or keep more of it")
            elif check.worst_epoch >= NOTABLE_SATURATION:
                found.append(f"{100 * check.worst_epoch:.1f} % of the {what} saturated in an epoch: lower --lr or raise --warmup")
        if self.stored_bits_free == 0:
            found.append("a weight is at the end of its stored range: raise --weight-decay or lower --lr")
        if self.zero_outputs:
            found.append(f"{self.zero_outputs} live output channels have no weight but 0")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A run's numbers after its newest checkpoint, or the one asked for.

    Attributes:
        path: of the run.
        epoch: of the checkpoint.
        layers: in the order of the network.
        recorded: epochs whose ranges are in ``metrics.jsonl``.
    """

    path: Path
    epoch: int
    network: str
    layers: tuple[LayerCheck, ...]
    recorded: int

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        layers = [{**asdict(layer), "remarks": list(layer.remarks)} for layer in self.layers]
        return {
            "run": str(self.path),
            "network": self.network,
            "epoch": self.epoch,
            "epochs_recorded": self.recorded,
            "layers": layers,
        }


def inspect_run(path: Path, checkpoint: str | None = None) -> Inspection:
    """Look at a run: at the weights of its newest checkpoint (or of `checkpoint`), and at all ranges up to it.

    Raises:
        UsageError: there is no such run or checkpoint, or it is a float run.
        DataError: a file is damaged.
    """
    folder = RunFolder.open(path)
    saved = folder.load(checkpoint)
    plan = saved.plan
    if plan.arithmetic.is_float:
        raise UsageError(f"{path} is a float run: it has no integers that could saturate or overflow")
    lines = [line["tensors"] for line in folder.metrics() if "tensors" in line and line.get("epoch", 0) <= saved.epoch]
    try:
        checks = {name: _tensor([line[name] for line in lines if name in line]) for line in lines for name in line}
        layers = tuple(_layer(layer.name, layer.kind, saved, checks) for layer in plan.network)
    except (KeyError, TypeError, AttributeError) as problem:
        raise DataError(f"{folder.path}/metrics.jsonl holds ranges that cannot be read: {problem!r}") from None
    shown = tuple(layer for layer in layers if layer.density is not None or layer.activation or layer.error)
    return Inspection(path, saved.epoch, plan.network.name, shown, len(lines))


def _tensor(lines: list[Mapping[str, Any]]) -> TensorCheck:
    measured = [line["exponents"] for line in lines if line["exponents"] is not None]
    last = lines[-1]["exponents"]
    return TensorCheck(
        saturated=lines[-1]["saturated"],
        worst_epoch=max(line["saturated"] for line in lines),
        worst_step=max(line["worst_step"] for line in lines),
        exponents=(min(low for low, _ in measured), max(high for _, high in measured)) if measured else None,
        last_exponents=None if last is None else (last[0], last[1]),
        headroom=ACCUMULATOR_MAGNITUDE_BITS - max(line["accumulator_bits"] for line in lines),
    )


def _layer(name: str, kind: str, saved: Checkpoint, checks: Mapping[str, TensorCheck]) -> LayerCheck:
    network = saved.plan.network
    activation, error = checks.get(f"activation/{name}"), _error_of(name, checks)
    flags = tuple(sorted(flag.partition("/")[2] for flag in saved.state.values["overflows"] if flag.partition("/")[0] == name))
    layer = next((each for each in network.mac_layers if each.name == name), None)
    if layer is None:
        return LayerCheck(name, kind, None, 0, 0, 0, None, None, activation, error, None, flags)
    weight, formats = f"{name}.weight", saved.state.values["parameters"][f"{name}.weight"]
    stored: NDArray[np.int32] = saved.state.arrays[f"stored/{weight}"]
    mask = saved.state.arrays.get(f"mask/{weight}", np.ones(stored.shape[:2], np.bool_))
    largest = int(np.abs(stored.astype(np.int64)).max(initial=0))
    alive = mask.any(axis=1)
    return LayerCheck(
        name=name,
        kind=kind,
        density=float(mask.mean()),
        dead_outputs=int((~alive).sum()),
        dead_inputs=int((~mask.any(axis=0)).sum()),
        zero_outputs=int((alive & ~stored.reshape(len(stored), -1).any(axis=1)).sum()),
        largest_weight=ldexp(largest, -formats["stored_frac"]),
        stored_bits_free=formats["stored_bits"] - 1 - bit_length(largest),
        activation=activation,
        error=error,
        wg_headroom=_wg_headroom(network, layer, saved.plan.batch),
        overflows=flags,
    )


def _error_of(name: str, checks: Mapping[str, TensorCheck]) -> TensorCheck | None:
    """That of the layer's output; where several layers read it and it is a plain sum, the worst of what they send."""
    if f"error/{name}" in checks:
        return checks[f"error/{name}"]
    parts = [check for tensor, check in checks.items() if tensor.startswith(f"error/{name}@")]
    return max(parts, key=lambda check: check.worst_epoch, default=None)


def _wg_headroom(network: Network, layer: MacLayer, batch: int) -> int:
    """A kernel's gradient is a sum over the batch and the output's pixels of products of two operands."""
    pixels = prod(network.shapes[layer.name][1:])
    return ACCUMULATOR_MAGNITUDE_BITS - bit_length(batch * pixels * OPERAND**2)
