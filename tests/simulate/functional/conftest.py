"""A small compiled step on `tiny`, ready to run, whole or with instructions changed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.compiler import Program, compile_step
from fixgrad.machine import preset
from fixgrad.machine.encoding import Instruction, encode_program
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, State, initial_state, step_table
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.functional import Order, run

BATCH = 6
PADDED = ConvGeometry(padding=(1, 1))


@dataclass(frozen=True)
class Step:
    """A program and its memory before it runs; the state, images and labels that are in it."""

    program: Program
    image: NDArray[np.uint8]
    state: State
    batch: tuple[NDArray[np.int8], NDArray[np.int64]]

    @property
    def instructions(self) -> list[Instruction]:
        return list(self.program.instructions)

    def memory_after(self, instructions: list[Instruction] | None = None, order: Order | None = None) -> NDArray[np.uint8]:
        """The data in memory after these instructions (by default the program's own) have run."""
        image = self.image.copy()
        region = self.program.layout.regions["program"]
        if instructions is not None:
            image[region.address : region.end] = np.frombuffer(encode_program(instructions), np.uint8)
        run(self.program, image, None, order)
        return image[: region.address]

    def changed(self, index: int, /, **fields: Any) -> list[Instruction]:
        """The instructions with fields of one of them set."""
        instructions = self.instructions
        instructions[index] = instructions[index].replace(**fields)
        return instructions

    def first(self, name: str, **fields: int) -> int:
        """Position of the first instruction of a kind with these fields."""
        return next(
            index
            for index, item in enumerate(self.program.instructions)
            if item.name == name and all(getattr(item, field) == value for field, value in fields.items())
        )


def _network() -> Network:
    return Network(
        "small",
        (2, 6, 6),
        6,
        (
            Conv2d(name="a", inputs=(INPUT,), in_channels=2, filters=6, kernel=(3, 3), geometry=PADDED, relu=True),
            MaxPool2d(name="pool", inputs=("a",), window=(2, 2)),
            Conv2d(name="b", inputs=("pool",), in_channels=6, filters=5, kernel=(3, 3), geometry=PADDED, relu=True),
            Flatten(name="flat", inputs=("b",)),
            Linear(name="head", inputs=("flat",), in_features=45, out_features=4, out_bits=16),
        ),
    )


@pytest.fixture(scope="session")
def step() -> Step:
    """One training step of two convolutions and a linear layer, with every tensor in use."""
    network, recipe, rng = _network(), Recipe(learning_rate=0.05), np.random.default_rng(4)
    weights = {name: rng.normal(size=shape) * 0.4 for name, shape in network.parameters.items()}
    state = initial_state(network, weights, recipe)
    mask = rng.random((5, 6)) < 0.7
    state.parameters["b.weight"].prune(mask)
    x = rng.integers(-127, 128, (BATCH, *network.input_shape)).astype(np.int8)
    labels = rng.integers(0, network.classes, BATCH)
    ReferenceExecutor(network, state, recipe, 1).calibrate(x, labels)
    program = compile_step(network, {"b.weight": mask}, preset("tiny").with_changes(input_words=128, lane_words=64), BATCH, recipe)
    table = step_table(network, state, recipe, 1, BATCH)
    return Step(program, program.build_image(state, table, x, labels), state, (x, labels))
