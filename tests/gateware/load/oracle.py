"""What LOAD instructions write, by the functional simulator, and random programs of them."""

import random
from dataclasses import dataclass, field
from typing import Any

from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.instructions import STEP_ENTRY_BYTES
from fixgrad.machine.parameters import TAPS_PER_WORD
from fixgrad.simulate.functional.chip import Chip
from fixgrad.simulate.functional.load import load_error, load_input, load_kernels, load_params

EXECUTE = {"LOAD_PARAMS": load_params, "LOAD_INPUT": load_input, "LOAD_ERROR": load_error, "LOAD_KERNELS": load_kernels}


@dataclass
class Expected:
    """What a program leaves behind.

    Attributes:
        chip: memories at the end.
        kernels: for each group and PE, the words of its queue: (out, in, weights or None, last, end).
        counts: for each instruction, the words that each sink has got when it has completed.
    """

    chip: Chip
    kernels: list[list[list[tuple[Any, ...]]]]
    counts: list[dict[str, int]] = field(default_factory=list)


def queue_words(chip: Chip, group: int, pe: int, machine: Machine) -> list[tuple[Any, ...]]:
    """Takes everything out of a queue, as words."""
    words: list[tuple[Any, ...]] = []
    for item in chip.queues[group][pe].entries:
        for k, (out, channel) in enumerate(zip(item.out, item.channel, strict=True)):
            place = (int(out) % machine.lane_words, int(channel) % machine.input_words)
            if item.weights is None or not item.weights.shape[1]:
                words.append((*place, bytes(TAPS_PER_WORD), True, False))
                continue
            raw = item.weights[k].tobytes()
            parts = [raw[i : i + TAPS_PER_WORD].ljust(TAPS_PER_WORD, b"\0") for i in range(0, len(raw), TAPS_PER_WORD)]
            # Coordinates count with an entry's last word alone.
            words += [(None, None, part, False, False) for part in parts[:-1]] + [(*place, parts[-1], True, False)]
        if item.last:
            words.append((None, None, None, False, True))
    chip.queues[group][pe].entries.clear()
    chip.queues[group][pe].words = 0
    return words


def expected(machine: Machine, image: Any, program: list[Instruction]) -> Expected:
    """Executes a program; the queues are emptied after each instruction."""
    groups, pes = range(machine.groups), range(machine.pes_per_group)
    chip = Chip(machine, image)
    found = Expected(chip, [[[] for _ in pes] for _ in groups])
    counts = {"table": 0}
    counts |= {f"input_{p}": 0 for p in pes} | {f"kernel_{g}": 0 for g in groups}
    counts |= {f"error_{g}_{p}": 0 for g in groups for p in pes}
    for i in program:
        EXECUTE[i.name](chip, i)
        for g in groups:
            words = [queue_words(chip, g, p, machine) for p in pes]
            counts[f"kernel_{g}"] += max(len(of_pe) for of_pe in words)
            for p in pes:
                found.kernels[g][p] += words[p]
        if i.name == "LOAD_PARAMS":
            counts["table"] += i.count
        elif i.name == "LOAD_INPUT":
            for p, box in zip(pes, chip.rectangles(i, "in"), strict=True):
                counts[f"input_{p}"] += i.channels * box.pixels
        elif i.name == "LOAD_ERROR":
            for g in groups:
                for p, box in zip(pes, chip.rectangles(i, "out"), strict=True):
                    first = (g * machine.pes_per_group + p if i.channel_split else g) * i.channels
                    counts[f"error_{g}_{p}"] += max(min(i.channels, i.total_channels - first), 0) * box.pixels
        found.counts.append(dict(counts))
    return found


def program(machine: Machine, rng: random.Random, size: int, memory: int, entries: int = 30) -> list[Instruction]:
    """A random program of all four kinds; nothing of it leaves its memories."""
    makers = (random_params, random_input, random_error, random_kernels)
    weights = (1, 3, 2, 4)
    return [rng.choices(makers, weights)[0](machine, rng, memory, entries) for _ in range(size)]


def random_params(machine: Machine, rng: random.Random, memory: int, entries: int) -> Instruction:
    first = rng.randrange(machine.param_words)
    count = rng.randint(0, min(machine.param_words - first, 5))
    return Instruction("LOAD_PARAMS", source=_place(rng, memory, STEP_ENTRY_BYTES * count, 64), first=first, count=count)


def _place(rng: random.Random, memory: int, size: int, multiple: int) -> int:
    return rng.randrange((memory - size) // multiple + 1) * multiple


def _rectangles(rng: random.Random, prefix: str, rows: int, columns: int, share: bool) -> tuple[dict[str, int], int]:
    """Rectangles of a map for four PEs, some of them empty, and the most pixels of any."""
    fields, most, common = {}, 0, None
    for pe in range(4):
        top, left = rng.randrange(rows), rng.randrange(columns)
        box = (top, rng.randint(top, rows), left, rng.randint(left, columns))
        if share:
            common = common or (rng.choice([(0, rows, 0, columns), box]))
            box = common
        fields |= {f"{prefix}{pe}_{side}": value for side, value in zip(("top", "bottom", "left", "right"), box, strict=True)}
        most = max(most, (box[1] - box[0]) * (box[3] - box[2]))
    return fields, most


def _map(machine: Machine, rng: random.Random, prefix: str, words: int, memory: int) -> dict[str, int]:
    """A random map in memory, rectangles of it, and channels that fit a memory of `words` words."""
    rows, columns = rng.choice([(1, 1), (2, 2), (rng.randint(1, 7), rng.randint(1, 7))])
    fields, most = _rectangles(rng, prefix, rows, columns, rng.random() < 0.5)
    row_words = columns + rng.choice([0, 0, 3])
    channel_words = rows * row_words + rng.choice([0, 0, 1, 40])
    slot = max(most, 1) + rng.randint(0, 2)
    while slot > words:
        slot = most
        if slot > words:
            return _map(machine, rng, prefix, words, memory)
    room = max((words - most) // slot, 0)
    base = rng.randint(0, words - most - room * slot) if most else 0
    return {
        **fields,
        "channels": rng.choice([0, 1, rng.randint(1, room + 1), rng.randint(1, room + 1)]),
        "row_words": row_words,
        "channel_words": channel_words,
        "slot_words": slot,
        "base": base,
    }


def random_input(machine: Machine, rng: random.Random, memory: int, entries: int) -> Instruction:
    fields = _map(machine, rng, "in", machine.input_words, memory)
    fields["channels"] = min(fields["channels"], memory // (2 * machine.lanes * fields["channel_words"]))
    size = machine.lanes * (fields["channels"] + 1) * fields["channel_words"]
    return Instruction(
        "LOAD_INPUT", source=_place(rng, memory, size, machine.lanes), buffer=fields.pop("base"), **fields
    )


def random_error(machine: Machine, rng: random.Random, memory: int, entries: int) -> Instruction:
    fields = _map(machine, rng, "out", machine.lane_words, memory)
    split = rng.randrange(2)
    owners = machine.groups * (machine.pes_per_group if split else 1)
    fields["channels"] = min(fields["channels"], 12, memory // (2 * machine.lanes * fields["channel_words"] * owners))
    total = fields["channels"] * owners
    total = rng.choice([total, total + 3, rng.randint(0, total)])
    size = machine.lanes * (min(total, fields["channels"] * owners) + 1) * fields["channel_words"]
    return Instruction(
        "LOAD_ERROR",
        source=_place(rng, memory, size, machine.lanes),
        lane_base=fields.pop("base"),
        channel_split=split,
        total_channels=total,
        **fields,
    )


def random_kernels(machine: Machine, rng: random.Random, memory: int, entries: int) -> Instruction:
    taps, with_data = rng.choice([1, 4, 9, 9, 9, 10, 25, 49]), rng.randrange(2)
    words = -(-taps // TAPS_PER_WORD) if with_data else 1
    count = rng.choice([0, 1, rng.randint(0, min(entries, (machine.kernel_words - 1) // words))])
    return Instruction(
        "LOAD_KERNELS",
        group=rng.randrange(machine.groups),
        pe=rng.choice([7, rng.randrange(machine.pes_per_group)]),
        index=_place(rng, memory, 2 * count, 2),
        data=_place(rng, memory, taps * count, 1),
        count=count,
        taps=taps,
        with_data=with_data,
        transposed=rng.randrange(2),
        out_base=rng.randint(0, 100),
        in_base=rng.randint(0, 100),
        last=rng.randrange(2),
    )
