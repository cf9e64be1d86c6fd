"""Programs written by hand, and small compiled ones."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixgrad.compiler import Program, compile_step
from fixgrad.compiler.graph_builder import build_graph
from fixgrad.compiler.packing import decode_columns
from fixgrad.machine import Machine, preset
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.instructions import BY_NAME
from fixgrad.network import Conv2d, Linear, MaxPool2d, Network, PadChannels, SlidingMaxPool2d
from fixgrad.network.builder import NetworkBuilder
from fixgrad.network.graph import INPUT
from fixgrad.network.layers import Flatten
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.bounds import random_masks

PROGRAM_ADDRESS = 1 << 20


class HandMade:
    """What the timing model asks of a program, from instructions written one by one.

    `kernels` of each COMPUTE, [groups, pes]; every kernel takes one cycle in every PE.
    """

    def __init__(
        self,
        machine: Machine,
        instructions: Sequence[tuple[Instruction, str]],
        kernels: Sequence[Sequence[Sequence[int]]] = (),
    ) -> None:
        self.machine, self.batch, self.count_padding = machine, machine.lanes, False
        self.network = Network("hand", (1, 1, 1), 6, (Flatten(name="f", inputs=(INPUT,)), _linear()))
        self.encoded = np.frombuffer(b"".join(item.encode() for item, _ in instructions), np.uint8).reshape(-1, 128)
        self.labels = tuple(_label(phase) for _, phase in instructions)
        shape = (-1, machine.groups, machine.pes_per_group)
        self.kernel_counts = np.array(kernels, np.int32).reshape(shape)
        self.taps = np.ones((len(self.kernel_counts), machine.pes_per_group), np.int32)
        self.compute_cycles = self.kernel_counts.astype(np.int64)
        self.opcodes = self.encoded[:, 0].copy()
        self.positions = {name: np.flatnonzero(self.opcodes == kind.opcode) for name, kind in BY_NAME.items()}
        table = SimpleNamespace(address=lambda name: PROGRAM_ADDRESS)
        self.layout = SimpleNamespace(table=table, graph=build_graph(self.network))

    def columns(self, name: str) -> dict[str, Any]:
        return decode_columns(name, self.encoded[self.positions[name]])


def _linear() -> Linear:
    return Linear(name="layer", inputs=("f",), in_features=1, out_features=1, out_bits=16)


def _label(phase: str) -> Any:
    from fixgrad.compiler.stream import Label

    return Label("" if phase == "step" else "layer", phase)


@pytest.fixture(scope="session")
def tiny() -> Machine:
    return preset("tiny")


def small_network(name: str = "small") -> Network:
    """Two convolutions, one with stride, a pool and two linear layers; nothing fills the machine's groups."""
    layers = (
        Conv2d(
            name="conv1", inputs=(INPUT,), in_channels=3, filters=5, kernel=(3, 3), relu=True,
            geometry=ConvGeometry(padding=(1, 1)),
        ),
        MaxPool2d(name="pool", inputs=("conv1",)),
        Conv2d(
            name="conv2", inputs=("pool",), in_channels=5, filters=7, kernel=(3, 3), relu=True,
            geometry=ConvGeometry(padding=(1, 1), stride=(2, 2)),
        ),
        Flatten(name="flat", inputs=("conv2",)),
        Linear(name="dense1", inputs=("flat",), in_features=7 * 2 * 2, out_features=9, relu=True),
        Linear(name="dense2", inputs=("dense1",), in_features=9, out_features=4, out_bits=16),
    )  # fmt: skip
    return Network(name, (3, 8, 8), 6, layers)


def residual_network() -> Network:
    """Every instruction of the elementwise unit: normalisation, a sum, overlapping and picked maxima, zero channels, averages."""
    b = NetworkBuilder("residual", (3, 9, 9), 6)
    tensor = b.conv_norm("conv1", "norm1", INPUT, 5, 3, relu=True)
    tensor = b.append(
        SlidingMaxPool2d(name="pool", inputs=(tensor,), window=(3, 3), geometry=ConvGeometry((2, 2), (1, 1)))
    )
    inner = b.conv_norm("conv2", "norm2", tensor, 7, 3, stride=2, relu=True)
    inner = b.conv_norm("conv3", "norm3", inner, 7, 3)
    pick = b.append(SlidingMaxPool2d(name="pick", inputs=(tensor,), window=(1, 1), geometry=ConvGeometry((2, 2))))
    pad = b.append(PadChannels(name="pad", inputs=(pick,), before=1, behind=1))
    return b.classifier("head", b.add("add", inner, pad, relu=True), 4)


Compiled = Callable[..., Program]


@pytest.fixture(scope="session")
def compiled() -> Compiled:
    """compiled(network, machine name, batch, density, **options) -> program."""

    def build(
        network: Network | None = None, machine: str | Machine = "tiny", batch: int = 4, density: float = 0.6, **options: Any
    ) -> Program:
        has_unit = (preset(machine) if isinstance(machine, str) else machine).elementwise_lanes and machine != "u280"
        network = network or (residual_network() if has_unit else small_network())
        masks = random_masks(network, {layer.name: density for layer in network.mac_layers})
        chosen = preset(machine) if isinstance(machine, str) else machine
        return compile_step(network, {f"{name}.weight": mask for name, mask in masks.items()}, chosen, batch, **options)

    return build
