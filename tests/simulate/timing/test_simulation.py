"""Programs of a few instructions, whose cycles can be worked out by hand."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from fixgrad.machine import Machine, preset
from fixgrad.machine.encoding import Instruction
from fixgrad.simulate.dram import Fidelity
from fixgrad.simulate.timing import Assumptions, Cause, Simulation
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.traffic import Request

from .conftest import PROGRAM_ADDRESS, HandMade

#: On the machine `tiny`: cycles from an instruction's turn to its unit (8 beats of its port), and until it may begin.
BEATS, DISPATCH = 8, 4
#: Cycles of a COMPUTE beyond its steps; from a completion until what waits for it begins.
FILL, COMPLETION = 12, 2
MAP = 0x4000


def run(machine: Machine, instructions: Sequence[tuple[Instruction, str]], kernels: Any = (), **options: Any) -> Simulation:
    return Simulation(HandMade(machine, instructions, kernels), Fidelity.CLOSED_FORM, **options)  # type: ignore[arg-type]


def fetched(machine: Machine, count: int) -> tuple[int, MemorySystem]:
    """When the first of `count` instructions is on chip, and the memory after that."""
    memory = MemorySystem(machine, Fidelity.CLOSED_FORM)
    return memory.serve(0, Request(PROGRAM_ADDRESS, 128 * count), 0).first, memory


def causes(simulation: Simulation) -> dict[Cause, int]:
    return {cause: sum(row[cause] for row in simulation.ledger.cycles) for cause in Cause}


def halt(**waits: int) -> tuple[Instruction, str]:
    return Instruction("HALT", **waits), "step"


def compute(**fields: int) -> tuple[Instruction, str]:
    """Of a pixel in each PE."""
    pixels = {f"out{pe}_{side}": 1 for pe in range(2) for side in ("bottom", "right")}
    return Instruction("COMPUTE", **pixels, **fields), "ff"


def load_input(words: int, **fields: int) -> tuple[Instruction, str]:
    """A row of `words` words of one channel."""
    shape = {"channel_words": words, "row_words": words, "in0_bottom": 1, "in0_right": words}
    return Instruction("LOAD_INPUT", source=MAP, channels=1, **shape, **fields), "ff"


def post(words: int, **fields: int) -> tuple[Instruction, str]:
    """A row of `words` pixels in PE 0 and as many in PE 1, one channel in each of two groups."""
    shape = {
        "channels": 1, "total_channels": 2, "channel_words": 2 * words, "row_words": 2 * words, "pool_rows": 1,
        "pool_columns": 1, "out_bits": 8, "out0_bottom": 1, "out0_right": words, "out1_bottom": 1, "out1_left": words,
        "out1_right": 2 * words,
    }  # fmt: skip
    return Instruction("POST", target=MAP, **shape, **fields), "ff"


def test_a_program_of_nothing_takes_its_fetch_and_dispatch(tiny: Machine) -> None:
    simulation = run(tiny, [compute(), halt(wait_compute=1)], [[[0, 0], [0, 0]]])
    start = fetched(tiny, 2)[0] + BEATS + DISPATCH
    assert [group.runs for group in simulation.groups] == [[(start, start + FILL, 0)]] * 2
    assert simulation.cycles == start + FILL + COMPLETION


def test_groups_run_at_their_own_pace(tiny: Machine) -> None:
    kernels = [[[3, 5], [10, 2]], [[4, 4], [1, 1]]]
    simulation = run(tiny, [compute(), compute(), halt(wait_compute=2)], kernels)
    start = fetched(tiny, 3)[0] + BEATS + DISPATCH
    first, second = start + 5 + FILL, start + 10 + FILL
    assert simulation.groups[0].runs == [(start, first, 0), (first, first + 4 + FILL, 0)]
    assert simulation.groups[1].runs == [(start, second, 0), (second, second + 1 + FILL, 0)]
    assert simulation.cycles == second + 1 + FILL + COMPLETION
    found = causes(simulation)
    assert found[Cause.COMPUTE] == 3 + 5 + 10 + 2 + 4 + 4 + 1 + 1
    assert found[Cause.IMBALANCE] == (5 - 3) + (10 - 2) + 2 * 2  # group 0 ends two cycles before group 1
    assert sum(found.values()) == simulation.cycles * tiny.pes


def test_a_group_that_waits_for_a_slower_one_is_imbalanced(tiny: Machine) -> None:
    kernels = [[[1, 1], [1000, 1000]], [[1, 1], [1, 1]]]
    simulation = run(tiny, [compute(), compute(wait_compute=1), halt(wait_compute=2)], kernels)
    (first, second), slow = simulation.groups[0].runs, simulation.groups[1].runs
    assert second.start == slow[0].end + COMPLETION
    assert causes(simulation)[Cause.IMBALANCE] == (slow[0].end - first.end) * tiny.pes_per_group


def test_compute_waits_for_the_words_of_a_load(tiny: Machine) -> None:
    words = 600
    simulation = run(tiny, [load_input(words), compute(wait_load=1), halt(wait_compute=1)], [[[9, 9], [9, 9]]])
    there, memory = fetched(tiny, 3)
    asked = there + BEATS + DISPATCH
    arrival = memory.serve(asked, Request(MAP, words * tiny.lanes), 0)
    end = max(arrival.first + words, arrival.last)
    assert [(record.asked, record.first, record.end) for record in simulation.loads] == [(asked, arrival.first, end)]
    assert simulation.groups[0].runs[0].start == end + COMPLETION
    found = causes(simulation)
    # One word a cycle is slower than this memory: the wait is the bus's, but for the latency of its first word.
    assert found[Cause.LOAD_BUS] == words * tiny.pes
    assert found[Cause.LATENCY] == (arrival.first - asked) * tiny.pes


def test_a_wider_data_bus_makes_memory_the_limit(tiny: Machine) -> None:
    wide = tiny.with_changes(load_words=4, lanes=64)
    simulation = run(wide, [load_input(64), compute(wait_load=1), halt(wait_compute=1)], [[[9, 9], [9, 9]]])
    (record,) = simulation.loads
    assert record.bus == 16
    assert record.end - record.first >= 64 * 64 / wide.memory.port_bytes
    assert causes(simulation)[Cause.BANDWIDTH] == (record.end - record.first - 16) * wide.pes


def test_loads_of_kernels_take_a_cycle_for_each_entry(tiny: Machine) -> None:
    kernels = [
        (Instruction("LOAD_KERNELS", group=g, pe=7, count=200, taps=18, with_data=1, index=MAP, data=MAP + 4096, last=1), "ff")
        for g in range(2)
    ]
    program = [*kernels, compute(wait_load=2), halt(wait_compute=1)]
    apart, together = (run(tiny, program, [[[1, 1], [1, 1]]], join=join) for join in (False, True))
    # An entry of 18 weights is two words of the queue, and the end mark is one.
    assert [record.bus for record in apart.loads] == [401, 401]
    assert [record.bus for record in together.loads] == [802]
    for simulation in (apart, together):
        assert simulation.loads[-1].end + COMPLETION == simulation.groups[0].runs[0].start
    assert causes(apart)[Cause.LOAD_BUS] == 802 * tiny.pes


def test_post_takes_its_words_from_the_cycles_of_a_running_compute(tiny: Machine) -> None:
    kernels = [[[1, 1], [1, 1]], [[5000, 5000], [5000, 5000]]]
    program = [compute(), compute(), post(32, wait_compute=1), halt(wait_compute=2, wait_post=1)]
    simulation = run(tiny, program, kernels)
    for group in simulation.groups:
        assert group.runs[1].stolen == 32
        assert group.runs[1].end - group.runs[1].start == 5000 + FILL + 32
    assert causes(simulation)[Cause.POST] == 32 * tiny.pes
    (record,) = simulation.posts
    assert record.busy == 2 * 2 * 32  # one post-processor drains both groups, one word of a PE a cycle
    assert record.end > record.drained >= record.begin + record.busy


def test_pooling_writes_a_quarter_and_unpooling_four_times_the_words(tiny: Machine) -> None:
    pooled = {"pool_rows": 2, "pool_columns": 2, "out0_bottom": 8, "out0_right": 8, "channels": 2, "total_channels": 4}
    shape = {"channel_words": 16, "row_words": 4, "mask_channel_words": 64, "mask_row_words": 8, "out_bits": 8}
    busy, moved = {}, {}
    for mode in (0, 1):
        ways = {"mode": mode, "rectify": 1, "with_argmax": 1 - mode, "target": MAP, "mask": 1 << 16}
        instruction = Instruction("POST", **ways, **pooled, **shape)
        simulation = run(tiny, [(instruction, "ff"), halt(wait_post=1)])
        busy[mode] = simulation.posts[0].busy
        totals = simulation.memory.channels[0].totals
        moved[mode] = totals.bytes_written, totals.bytes_read - 128 * 2
    words, lanes = 4 * 64, tiny.lanes
    assert busy[0] == words  # drains 64 pixels of 4 channels
    assert moved[0] == (2 * words // 4 * lanes, 0)  # the maxima and their places
    assert busy[1] == 4 * words
    elements = 4 * 4  # the first random element of each channel
    assert moved[1] == (4 * words * lanes, 2 * words * lanes + elements)  # errors; mask and places


def elementwise(rows: int, columns: int, **fields: int) -> tuple[Instruction, str]:
    """One channel of 8-bit codes from another."""
    window = dict.fromkeys(("kernel_rows", "kernel_columns", "stride_rows", "stride_columns"), 1)
    size = {"rows": rows, "columns": columns, "first_rows": rows, "first_columns": columns, "row_words": columns}
    shape = {"channels": 1, "channel_words": rows * columns, "first_channel_words": rows * columns, "first_row_words": columns}
    given = {"operands": 1, "first": MAP, "target": 1 << 17, "out_bits": 8, **window, **size, **shape, **fields}
    return Instruction("ELEMENTWISE", **given), "ff"


def test_the_elementwise_unit_takes_its_lanes_a_cycle_and_moves_each_map_once() -> None:
    graph = preset("tiny-graph")
    simulation = run(graph, [elementwise(8, 16), halt(wait_post=1)])
    (record,) = simulation.posts
    assert record.busy == 8 * 16 * graph.lanes // graph.elementwise_lanes
    totals = simulation.memory.channels[0].totals
    assert (totals.bytes_read - 2 * 128, totals.bytes_written) == (8 * 16 * graph.lanes, 8 * 16 * graph.lanes)
    two = run(graph, [elementwise(8, 16, operands=2, second=2 * MAP, second_wide=1), halt(wait_post=1)])
    assert two.posts[0].busy == record.busy
    assert two.memory.channels[0].totals.bytes_read - 2 * 128 == 3 * 8 * 16 * graph.lanes


def test_a_window_walks_its_rows_and_reads_the_taps_that_are_inside() -> None:
    graph = preset("tiny-graph")
    window = {"kernel_rows": 3, "kernel_columns": 3, "stride_rows": 2, "stride_columns": 2, "pad_rows": 1, "pad_columns": 1}
    size = {"first_rows": 16, "first_columns": 16, "first_channel_words": 256, "first_row_words": 16}
    simulation = run(graph, [elementwise(8, 8, **window, **size), halt(wait_post=1)])
    lanes, cycles = graph.lanes, graph.lanes // graph.elementwise_lanes
    inside = 2 + 7 * 3  # along an axis the first window loses one tap to the padding
    assert simulation.posts[0].busy == 8 * (inside * 3 + 1) * cycles
    assert simulation.memory.channels[0].totals.bytes_read - 2 * 128 == inside**2 * lanes
    back = {**window, "transposed": 1, "first_rows": 8, "first_columns": 8, "first_channel_words": 64, "first_row_words": 8}
    simulation = run(graph, [elementwise(16, 16, **back), halt(wait_post=1)])
    # Every second pixel has one tap with a place; the others have two, of which that of the last one is in the padding.
    placed = 8 * 1 + 8 * 2
    assert simulation.posts[0].busy == (8 * placed + 7 * 2 * placed + placed + 16) * cycles
    assert simulation.memory.channels[0].totals.bytes_read - 2 * 128 == inside**2 * lanes


def test_elementwise_instructions_and_others_of_post_do_not_overlap() -> None:
    graph = preset("tiny-graph")
    program = [compute(), compute(), post(32, wait_compute=1), elementwise(8, 64), elementwise(8, 64), post(32, wait_compute=2)]
    kernels = [[[1, 1], [1, 1]], [[1, 1], [1, 1]]]
    records = run(graph, [*program, halt(wait_compute=2, wait_post=4)], kernels).posts
    assert len(records) == 4
    assert all(before.end <= after.begin for before, after in pairwise(records))
    apart = run(graph, [elementwise(8, 64), halt(wait_post=1)]).posts[0]
    assert records[2].end - records[1].end == apart.end - apart.ready


def test_scalars_of_a_normalisation_take_their_cycles_for_every_channel() -> None:
    graph = preset("tiny-graph")
    scalars = Instruction("NORMALISE", mode=1, record=MAP, gamma=2 * MAP, gamma_gradient=3 * MAP, beta_gradient=4 * MAP, channels=70)
    simulation = run(graph, [(scalars, "ng"), halt(wait_post=1)])
    assert simulation.posts[0].busy == 70 * graph.latencies.normalise_errors
    totals = simulation.memory.channels[0].totals
    records, vector = 70 * 128, 70 * 4
    assert (totals.bytes_read - 2 * 128, totals.bytes_written) == (records + vector, records + 2 * vector)


def test_sums_read_every_micro_batch_of_a_channel_once() -> None:
    graph = preset("tiny-graph")
    fields = {"target": 1 << 17, "micro_batches": 3, "batch_words": 128, "channels": 2, "channel_words": 64, "pixels": 64}
    same = {"first": MAP, "second": MAP, "first_wide": 1, "second_wide": 1}
    simulation = run(graph, [(Instruction("CHANNEL_SUMS", products=1, **same, **fields), "ff"), halt(wait_post=1)])
    assert simulation.posts[0].busy == 3 * 2 * 64 * graph.lanes // graph.elementwise_lanes
    assert simulation.memory.channels[0].totals.bytes_read - 2 * 128 == 3 * 2 * 64 * graph.lanes * 2


def update(group: int, count: int, **fields: int) -> tuple[Instruction, str]:
    state = {"stored": MAP, "momentum": 2 * MAP, "operand": 3 * MAP, "element": 4 * MAP}
    return Instruction(
        "UPDATE", group=group, count=count, taps=9, stored_bytes=3, momentum_bytes=3, operands=1, **state, **fields
    ), "update"


def test_two_groups_share_a_lane_in_turn(tiny: Machine) -> None:
    updates = [update(0, 9), update(1, 900), update(0, 0), update(1, 0)]
    simulation = run(tiny, [*updates, compute(wait_update=2), halt(wait_compute=1)], [[[1, 1], [1, 1]]])
    ((short, long, *empty),) = simulation.updates
    assert [record.end for record in empty] == [long.end] * 2  # they had nothing to do, but complete in order
    assert short.busy == 9
    assert long.busy == 900
    assert short.drained <= long.begin
    assert short.end < long.end
    assert simulation.groups[0].runs[0].start == long.end + COMPLETION
    totals = simulation.memory.channels[0].totals
    assert totals.bytes_written >= (3 + 3 + 1) * 909
    assert totals.bytes_written < (3 + 3 + 1) * 909 + 64 * 6  # whole bursts
    assert causes(simulation)[Cause.DEPENDENCY] >= 900 * tiny.pes


def test_updates_are_cut_into_steps_that_overlap(tiny: Machine) -> None:
    whole = run(tiny, [update(0, 9000), update(1, 9000), halt(wait_update=1)])
    assert [record.busy for record in whole.updates[0]] == [9000, 9000]
    # Reads and writes hide behind the parameters, but for the count of the first one's random elements, its first read, and the
    # last write.
    assert 18000 + 1000 < whole.cycles < 18000 + 1000 + 300
    steps = list(whole.work.steps(0, 0))
    assert [step.cycles for step in steps] == [252] * 35 + [180]


def test_loss_takes_its_cycles_for_every_class_and_image(tiny: Machine) -> None:
    instruction = Instruction("LOSS", classes=10, images=3, logit_bits=16, logits=MAP, labels=2 * MAP, target=3 * MAP)
    simulation = run(tiny, [(instruction, "loss"), compute(wait_post=1), halt(wait_compute=1)], [[[1, 1], [1, 1]]])
    assert simulation.posts[0].busy == 20 * 10 * 3
    assert causes(simulation)[Cause.POST] == 600 * tiny.pes


def test_a_full_queue_stops_dispatch(tiny: Machine) -> None:
    slow = [[[2000, 2000], [2000, 2000]], [[1, 1], [1, 1]]]
    program = [compute(), *[load_input(4, wait_compute=1)] * 8, compute(), halt(wait_compute=2)]
    starts = [
        run(tiny, program, slow, assumptions=Assumptions(queue_instructions=depth)).groups[0].runs[1].start for depth in (1, 16)
    ]
    deep = run(tiny, program, slow).groups[0].runs
    assert starts[1] == deep[1].start == deep[0].end
    assert starts[0] > deep[0].end + COMPLETION  # the loads in front of it had to go first


def test_reads_outstanding_are_limited(tiny: Machine) -> None:
    program = [*[load_input(64, wait_load=0)] * 12, halt(wait_load=12)]
    few, many = (run(tiny, program, assumptions=Assumptions(load_requests=n)).cycles for n in (1, 16))
    latency = run(tiny, program).memory.read_latency
    assert many < 12 * 64 + 150
    assert few >= 12 * (64 + latency // 2)


def test_a_program_that_never_halts_is_a_fault(tiny: Machine) -> None:
    with pytest.raises(AssertionError, match="never reached its HALT"):
        run(tiny, [compute(), halt(wait_load=1)], [[[1, 1], [1, 1]]])


def test_memory_is_shared_by_all_units(tiny: Machine) -> None:
    """LOAD and UPDATE ask for more than memory gives: together they take as long as their bytes."""
    narrow = tiny.with_changes(clock_mhz=1000.0, lanes=64, load_words=4)
    loads = [load_input(500)] * 12
    updates = [update(g, 9000) for g in range(2)]
    alone = run(narrow, [*loads, halt(wait_load=12)])
    both = run(narrow, [*updates, *loads, halt(wait_load=12, wait_update=1)])
    assert both.memory.bytes > 1.5 * alone.memory.bytes
    assert both.cycles > 1.3 * alone.cycles
    standard = both.memory.channels[0].standard
    assert both.cycles >= both.memory.bytes / standard.peak_bytes_per_ns


def test_partial_bursts_count_whole(tiny: Machine) -> None:
    simulation = run(tiny, [load_input(1), halt(wait_load=1)])
    assert simulation.memory.bytes == 64 + 2 * 128
    assert math.isclose(sum(simulation.memory.row_bytes), simulation.memory.bytes)


def test_what_a_full_queue_of_post_holds_up_waits_for_post() -> None:
    """A COMPUTE that waits for nothing, behind more POSTs than the queue holds: it comes late because POST is busy."""
    posts = [post(16)] * 40
    simulation = run(preset("tiny"), [*posts, compute(), halt(wait_compute=1, wait_post=len(posts))], [[[1, 1], [1, 1]]])
    found = causes(simulation)
    assert found[Cause.POST] > 40 * found[Cause.FILL] > 0
