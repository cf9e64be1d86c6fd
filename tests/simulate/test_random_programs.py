"""Random programs in the functional simulator: legal, and the same memory in every order that their waits allow."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.machine import preset
from fixgrad.machine.generate import RandomProgram, random_program
from fixgrad.simulate.functional import Order, execute, extreme_orders

TINY = preset("tiny")
#: All with the lanes of tiny: the simulator's inner loops are compiled for each number of lanes.
MACHINES = {
    "tiny": TINY,
    "an elementwise unit": preset("tiny-graph"),
    "one PE": preset("formal").with_changes(lanes=TINY.lanes),
    "sixteen PEs": TINY.with_changes(groups=4, pes_per_group=4, post_processors=2, lane_words=64),
}
SEEDS = range(10)


def memory_after(program: RandomProgram, order: Order | None = None) -> NDArray[np.uint8]:
    image = program.image.copy()
    execute(program.machine, image, program.instructions, None, order)
    return image


@pytest.mark.parametrize("name", MACHINES)
def test_every_order_gives_the_same_memory(name: str) -> None:
    orders = [*list(extreme_orders())[::11], Order(seed=1)]
    for seed in SEEDS:
        program = random_program(MACHINES[name], seed)
        expected = memory_after(program)
        assert not np.array_equal(expected, program.image)
        for order in orders:
            assert np.array_equal(memory_after(program, order), expected), (seed, order)


def test_only_regions_are_written() -> None:
    for seed in SEEDS:
        program = random_program(TINY, seed)
        owned = np.zeros(len(program.image), np.bool_)
        for region in program.regions:
            owned[region.address : region.address + region.bytes] = True
        changed = memory_after(program) != program.image
        assert not changed[~owned].any()
        assert not owned.all()
