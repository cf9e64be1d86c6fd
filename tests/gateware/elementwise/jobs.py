"""Random instructions of the elementwise unit with what they need in memory."""

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.step_entries import encode_entry
from fixgrad.machine import Instruction, Machine
from fixgrad.machine.elementwise_instructions import (
    ERRORS_OF_MAXIMA,
    MAXIMUM,
    NORMALISE_EVALUATION,
    NORMALISE_FF,
    NORMALISE_NG,
    RECORD,
    RECORD_BYTES,
    SUM,
)
from fixgrad.simulate.functional.chip import Chip
from fixgrad.simulate.functional.elementwise import channel_sums, elementwise
from fixgrad.simulate.functional.normalise import normalise
from fixgrad.simulate.functional.post import post, store_statistics

from .channels import a_channel, channel_of, record_bytes

Values = NDArray[Any]
ENTRIES = 8
#: Bits of a field of a record, as its text says; the unsigned ones.
BITS = {"total": 39, "product": 54, "a": 32, "b": 38, "c": 56, "mean": 25, "running_mean": 50, "running_variance": 50}
UNSIGNED = {"root": 18, "half": 6, "spread": 43}


def some_values(random: Random) -> dict[str, int]:
    """An entry of the step table with values that the unit's instructions use."""
    return {
        **channel_of(random)[1],
        "shift": random.choice((0, 0, 3, 8, 12, 31)),
        "stochastic": random.randint(0, 1),
        "key_low": random.getrandbits(32),
        "key_high": random.getrandbits(32),
        "left_first": random.choice((0, 0, 1, 7)),
        "left_second": random.choice((0, 0, 3, 15, 30)),
        "down": random.choice((0, 0, 1, 8, 13, 31)),
    }


def numbers(rng: np.random.Generator, limit: int, shape: Any) -> Values:
    """Random integers of both signs, some at the limits, one more than symmetric on the negative side."""
    scale = int(rng.integers(1, limit.bit_length() + 1))
    values = rng.integers(-(1 << scale) + 1, 1 << scale, shape).clip(-limit - 1, limit)
    extreme = rng.random(shape) < 0.05
    return np.where(extreme, rng.choice((-limit - 1, -limit, 0, limit), shape), values)


class Jobs:
    """Places in memory, one after the other, and instructions that use them."""

    def __init__(self, machine: Machine, image: Values, seed: int) -> None:
        self.machine, self.image = machine, image
        self.random, self.rng, self.free = Random(seed), np.random.default_rng(seed), 64
        self.entries = [some_values(self.random) for _ in range(ENTRIES)]

    @property
    def table(self) -> Values:
        """The step table."""
        return np.array([encode_entry(entry) for entry in self.entries])

    def allocate(self, size: int, align: int) -> int:
        address = -(-self.free // align) * align + self.random.randrange(2) * align
        self.free = address + size
        assert self.free <= len(self.image), "the test's memory is full"
        return address

    def store(self, values: Values, align: int) -> int:
        data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        address = self.allocate(len(data), align)
        self.image[address : address + len(data)] = data
        return address

    def codes(self, words: int, wide: int = 0) -> int:
        """A map of so many words."""
        limit, kind = ((1 << 15) - 1, "<i2") if wide else (127, "i1")
        return self.store(numbers(self.rng, limit, (words, self.machine.lanes)).astype(kind), self.machine.lanes)

    def records(self, channels: int) -> int:
        records = np.zeros((channels, RECORD_BYTES // 8), np.int64)
        for item in RECORD:
            if item.name in BITS:
                records[:, item.offset // 8] = numbers(self.rng, (1 << (BITS[item.name] - 1)) - 1, channels)
            else:
                records[:, item.offset // 8] = self.rng.integers(1, 1 << UNSIGNED[item.name], channels)
        return self.store(records, 8)

    def spaced(self, name: str, channels: int, rows: int, columns: int) -> tuple[dict[str, int], int]:
        """Fields of a map with room between rows and channels at times, and its words."""
        row = columns + self.random.choice((0, 0, 1))
        channel = rows * row + self.random.choice((0, 0, 3))
        prefix = f"{name}_" if name else ""
        return {f"{prefix}row_words": row, f"{prefix}channel_words": channel}, channels * channel

    def elementwise(self, **fixed: int) -> Instruction:
        random, lanes = self.random, self.machine.lanes
        channels, rows, columns = random.randint(1, 5), random.randint(1, 7), random.choice((1, 2, 3, 5, 9, 20))
        combine = random.choice((SUM, SUM, MAXIMUM, ERRORS_OF_MAXIMA))
        fields = {
            "operands": random.choice((0, 1, 1, 2, 2)),
            "combine": combine,
            "transposed": int(combine == ERRORS_OF_MAXIMA or random.random() < 0.3),
            "with_argmax": random.randint(0, 1),
            "per_channel": random.randint(0, 1),
            "factor": random.choice((0, 1, 1, 5, 932_067, (1 << 24) - 1)),
            "rectify": random.randint(0, 1),
            "masked": random.randint(0, 1),
            "channels": channels,
            "rows": rows,
            "columns": columns,
            "out_bits": random.choice((8, 8, 2, 9, 16)),
            "images": random.randint(0, lanes),
            "param": random.randrange(ENTRIES),
            "measured": random.randint(0, 1),
            "statistics": random.randrange(4),
            "random_pixel": random.randrange(1 << 10),
            "random_row": columns + random.randrange(3),
            "random_batch": random.randrange(1, 1 << 10),
            "random_image": random.randrange(1 << 8),
            "first_wide": random.randint(0, 1),
            "second_wide": random.randint(0, 1),
            **self.window(rows, columns),
        }
        fields |= fixed
        return Instruction("ELEMENTWISE", **{**fields, **self._maps(fields), **fixed})

    def window(self, rows: int, columns: int) -> dict[str, int]:
        """A window: pixel by pixel, of any shape, or far outside."""
        random = self.random
        if random.random() < 0.4:
            sizes = {"first_rows": rows, "first_columns": columns}
            return {**sizes, **dict.fromkeys(("kernel_rows", "kernel_columns", "stride_rows", "stride_columns"), 1)}
        fields = {}
        for axis in ("rows", "columns"):
            fields |= {
                f"first_{axis}": random.randint(1, 9),
                f"kernel_{axis}": random.choice((1, 2, 3, 5)),
                f"stride_{axis}": random.choice((1, 1, 2, 3, 1000)),
                f"pad_{axis}": random.choice((0, 0, 1, 2, 40)),
            }
        return fields

    def _maps(self, fields: dict[str, int]) -> dict[str, int]:
        """Where the maps lie, and what is in them."""
        channels, rows, columns = fields["channels"], fields["rows"], fields["columns"]
        lanes = self.machine.lanes
        first, first_words = self.spaced("first", channels, fields["first_rows"], fields["first_columns"])
        second, second_words = self.spaced("second", channels, rows, columns)
        mask, mask_words = self.spaced("mask", channels, rows, columns)
        target, target_words = self.spaced("", channels, rows, columns)
        taps = fields["kernel_rows"] * fields["kernel_columns"]
        numbers_ = self.rng.integers(0, taps, (first_words, lanes)).astype(np.uint8)
        errors = fields["combine"] == ERRORS_OF_MAXIMA
        return {
            **first,
            **second,
            **mask,
            **target,
            "first": self.codes(first_words, fields["first_wide"]),
            "second": self.codes(second_words, fields["second_wide"]),
            "mask": self.codes(mask_words),
            "argmax": self.store(numbers_, lanes) if errors else self.allocate(target_words * lanes, lanes),
            "target": self.allocate(2 * target_words * lanes, lanes),
            "record": self.records(channels),
            "element": self.store(self.rng.integers(0, 1 << 32, channels).astype("<u4"), 4),
        }

    def channel_sums(self, **fixed: int) -> Instruction:
        random = self.random
        channels, pixels, batches = random.randint(1, 20), random.choice((1, 1, 4, 17, 60)), random.randint(1, 3)
        channel_words = pixels + random.choice((0, 2))
        batch_words = channels * channel_words + random.choice((0, 5))
        wide = random.randint(0, 1)
        first = self.codes(batches * batch_words, wide)
        products, same = random.randint(0, 1), random.randint(0, 1)
        second_wide = wide if same else random.randint(0, 1)
        fields = {
            "first": first,
            "first_wide": wide,
            "second": first if same else self.codes(batches * batch_words, second_wide),
            "second_wide": second_wide,
            "products": products,
            "target": self.records(channels) if products else self.allocate(4 * channels, 4),
            "micro_batches": batches,
            "batch_words": batch_words,
            "channels": channels,
            "channel_words": channel_words,
            "pixels": pixels,
        }
        return Instruction("CHANNEL_SUMS", **{**fields, **fixed})

    def normalise(self, **fixed: int) -> Instruction:
        random, channels, param = self.random, self.random.randint(1, 9), self.random.randrange(ENTRIES)
        mode = fixed.get("mode", random.choice((NORMALISE_FF, NORMALISE_NG, NORMALISE_EVALUATION)))
        count, _, average = channel_of(random)
        found = [a_channel(random, mode, count, self.entries[param]) for _ in range(channels)]
        fields = {
            "mode": mode,
            "record": self.store(np.array([record_bytes(channel) for channel in found]), 8),
            **{name: self.store(np.array([channel[name] for channel in found], "<i4"), 4) for name in ("gamma", "beta")},
            **{name: self.allocate(4 * channels, 4) for name in ("gamma_gradient", "beta_gradient")},
            "channels": channels,
            "count": count,
            "average": average,
            "param": param,
        }
        return Instruction("NORMALISE", **{**fields, **fixed})

    def statistics(self) -> Instruction:
        return Instruction("STATISTICS", target=self.allocate(16 * 5, 4), count=5)


def execute(oracle: Chip, instructions: list[Instruction]) -> None:
    """What the definition makes of them."""
    kinds = {
        "POST": post,
        "ELEMENTWISE": elementwise,
        "CHANNEL_SUMS": channel_sums,
        "NORMALISE": normalise,
        "STATISTICS": store_statistics,
    }
    for instruction in instructions:
        oracle.undrained[:] = True
        kinds[instruction.name](oracle, instruction)
