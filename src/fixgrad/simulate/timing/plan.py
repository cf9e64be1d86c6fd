"""A program for the compiled loops: what every unit is to do and to ask of memory, worked out beforehand."""

import numpy as np

from fixgrad.machine.instructions import INSTRUCTION_BYTES, Unit
from fixgrad.machine.parameters import GROUPS_PER_UPDATE_LANE
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.channel_state import Integers
from fixgrad.simulate.timing.event_state import CONTROL, COUNT, FIRST, ORDINAL, ROW, UNIT, WAITS, Plan
from fixgrad.simulate.timing.work import OPCODES_OF, WAIT_UNITS, Work


def new_plan(work: Work, catalogue: Catalogue, program_address: int) -> Plan:
    """The plan of a program that lies at an address; its requests are put into `catalogue`."""
    machine, limits = work.machine, work.assumptions
    page = work.fetch_instructions
    starts = np.arange(0, work.instructions, page)
    sizes = np.minimum(page, work.instructions - starts) * INSTRUCTION_BYTES
    items, item_counts, item_first = _items(work)
    queues = np.array([0, *range(1, machine.groups + 1, GROUPS_PER_UPDATE_LANE), machine.groups + 1])
    item_queues = np.repeat(np.arange(machine.groups + 1), np.diff(item_first))
    item_steps, steps, reads, writes, drains = _steps(work, catalogue)
    return Plan(
        blocks=_blocks(work),
        load_blocks=np.array(work.numbers(Unit.LOAD), np.int64),
        compute_blocks=np.array(work.numbers(Unit.COMPUTE), np.int64),
        loads=work.add_loads(catalogue),
        leads=work.leads,
        cycles=work.group_cycles,
        holds=work.holds,
        queues=queues,
        alone=np.array([False, *(work.stands_alone(number) for number in work.numbers(Unit.POST))], np.int64),
        items=items,
        item_queues=item_queues,
        item_counts=item_counts,
        item_first=item_first,
        setups=_setups(work),
        item_steps=item_steps,
        steps=steps,
        reads=reads,
        writes=writes,
        drains=drains,
        update_counts=work.update_work.counts,
        fetches=catalogue.add_requests(program_address + starts * INSTRUCTION_BYTES, sizes),
        halt=work.numbers(Unit.CONTROL)[-1],
        page=page,
        fetch_bursts=limits.fetch_bursts,
        beats=max(1, INSTRUCTION_BYTES // machine.memory.port_bytes),
        depth=limits.queue_instructions,
        ahead=limits.steps_ahead,
        dispatch=machine.latencies.dispatch,
        completion=limits.completion,
        post=limits.post_end,
        update=limits.update_walk,
    )


def _blocks(work: Work) -> Integers:
    """`Plan.blocks`."""
    arrays = work.arrays
    found = np.zeros((len(arrays.first), WAITS + CONTROL), np.int64)
    found[:, FIRST], found[:, COUNT], found[:, ROW] = arrays.first, arrays.counts, arrays.row
    found[:, WAITS:] = arrays.waits
    for number, unit in enumerate((*WAIT_UNITS, Unit.CONTROL)):
        of = np.flatnonzero(np.isin(arrays.opcode, OPCODES_OF[unit]))
        found[of, UNIT], found[of, ORDINAL] = number, np.arange(len(of))
    return found


def _items(work: Work) -> tuple[Integers, Integers, Integers]:
    """`Plan.items`, `item_counts` and `item_first`."""
    posts, updates = work.numbers(Unit.POST), np.array(work.numbers(Unit.UPDATE), np.int64)
    blocks, counts = [np.array(posts, np.int64)], [np.ones(len(posts), np.int64)]
    for of_group in work.update_work.counts.T:
        blocks.append(updates[of_group > 0])
        counts.append(of_group[of_group > 0])
    blocks += [np.zeros(0, np.int64)] * (1 + work.machine.groups - len(blocks))
    first = np.cumsum([0, *map(len, blocks)])
    return np.concatenate(blocks), np.concatenate(counts), first


def _setups(work: Work) -> Integers:
    """`Plan.setups`."""
    updates = work.update_work
    found = [np.array([work.setup(number) for number in work.numbers(Unit.POST)], np.int64)]
    found += [setups[counts > 0] for setups, counts in zip(updates.setups.T, updates.counts.T, strict=True)]
    return np.concatenate(found)


def _steps(work: Work, catalogue: Catalogue) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """`Plan.item_steps`, `steps`, `reads`, `writes` and `drains`."""
    updates = work.update_work
    numbers, groups = updates.counts.shape
    lengths, rows, asked, drains = _post_steps(work, catalogue)
    # Of UPDATE: group by group instead of block by block; a read, a write and a drain each.
    order = np.argsort(updates.owners % groups * max(numbers, 1) + updates.owners // groups, kind="stable")
    of_updates = np.zeros((len(order), 4), np.int64)
    of_updates[:, 0], of_updates[:, 1:] = updates.cycles[order], 1
    drains = np.concatenate([drains, np.column_stack([updates.owners[order] % groups, updates.taken[order]])])
    reads, writes = (
        np.concatenate([first, np.column_stack([more, more + 1, 0 * more])])
        for first, more in zip(asked, updates.asked[:, order], strict=True)
    )
    steps = np.concatenate([rows, of_updates, np.zeros((1, 4), np.int64)])
    steps[:, 1:] = np.cumsum(steps[:, 1:], axis=0) - steps[:, 1:]
    per_item = np.bincount(updates.owners, minlength=numbers * groups).reshape(numbers, groups)
    update_lengths = [of[counts > 0] for of, counts in zip(per_item.T, updates.counts.T, strict=True)]
    item_steps = np.cumsum(np.concatenate([[0], lengths, *update_lengths])).astype(np.int64)
    return item_steps, steps, reads, writes, drains


def _post_steps(work: Work, catalogue: Catalogue) -> tuple[Integers, Integers, tuple[Integers, Integers], Integers]:
    """Of POST, LOSS and STATISTICS: steps of each, (cycles, reads, writes, drains) of each step, and all of those."""
    lengths, rows, drains = list[int](), list[tuple[int, int, int, int]](), list[tuple[int, int]]()
    asked: tuple[list[tuple[int, int, int]], ...] = ([], [])
    for number in work.numbers(Unit.POST):
        before = len(rows)
        for step in work.steps(number):
            for found, requests in zip(asked, (step.reads, step.writes), strict=True):
                found.extend(catalogue.find(request) for request in requests)
            drains.extend(step.drains)
            rows.append((step.cycles, len(step.reads), len(step.writes), len(step.drains)))
        lengths.append(len(rows) - before)
    reads, writes = (np.array(found, np.int64).reshape(-1, 3) for found in asked)
    columns = np.array(rows, np.int64).reshape(-1, 4)
    return np.array(lengths, np.int64), columns, (reads, writes), np.array(drains, np.int64).reshape(-1, 2)
