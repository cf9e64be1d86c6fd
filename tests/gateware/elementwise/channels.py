"""Channels of batch normalisation as they can be: sums of real codes, at the limits and far inside."""

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.step_entries import encode_entry
from fixgrad.machine.elementwise_instructions import NORMALISE_NG, RECORD, RECORD_BYTES
from fixgrad.network.normalisation import inverse_root, moments

KEPT = ("factor_left", "offset_left", "mean_left", "variance_left", "epsilon")


def an_entry(values: dict[str, int]) -> NDArray[np.uint8]:
    """An entry of the step table."""
    return encode_entry({name: values[name] for name in KEPT})


def channel_of(random: Random) -> tuple[int, dict[str, int], int]:
    """What all channels of an instruction share: the count of elements, the entry's values, the average's share."""
    count = random.choice((1, 1, 2, 3, 50, 1000, (1 << 24) - 1, 1 << 24))
    entry = {
        "factor_left": random.randint(-60, 20),
        "offset_left": random.randint(-20, 30),
        "mean_left": random.randint(-20, 20),
        "variance_left": random.randint(-30, 30),
        "epsilon": random.choice((1, 1, 1 << 40, random.randint(1, 1 << 40), random.randint(1, 1000))),
    }
    return count, entry, random.choice((0, 409, 4096, random.randint(0, 4096)))


def _sums(random: Random, count: int) -> tuple[int, int]:
    """Sum and sum of squares of `count` codes, of which some may differ."""
    limit = (1 << 15) - 1
    if count > 5000:
        values = [random.randint(-limit, limit) for _ in range(random.choice((1, 4)))]
        share, rest = divmod(count, len(values))
        counts = [share + (index < rest) for index in range(len(values))]
    else:
        spread = random.choice((0, 0, 1, 100, limit))
        centre = random.randint(-limit + spread, limit - spread) if spread < limit else 0
        values, counts = [centre + random.randint(-spread, spread) for _ in range(count)], [1] * count
    total = sum(value * each for value, each in zip(values, counts, strict=True))
    return total, sum(value * value * each for value, each in zip(values, counts, strict=True))


def a_channel(random: Random, mode: int, count: int, entry: dict[str, int]) -> dict[str, int]:
    """All fields of a record, gamma and beta."""
    total, squares = _sums(random, count)
    seen = moments(np.array([total]), np.array([squares]), count)
    inverse = inverse_root(seen.variance, entry["epsilon"])
    bits = random.randint(1, 31)
    channel = dict.fromkeys((item.name for item in RECORD), 0)
    channel |= {
        "total": total,
        "product": squares,
        "running_mean": random.randint(-(1 << 49) + 1, (1 << 49) - 1) >> random.randint(0, 49),
        "running_variance": random.randint(0, (1 << 49) - 1) >> random.randint(0, 49),
        "gamma": random.randint(-(1 << bits), (1 << bits) - 1),
        "beta": random.randint(-(1 << bits), (1 << bits) - 1),
    }
    if mode == NORMALISE_NG:
        channel |= {"mean": int(seen.mean[0]), "root": int(inverse.root[0]), "half": int(inverse.half[0])}
        channel["spread"] = int(inverse.variance[0])
        # Cauchy: the sum of products is as large as the spread and the errors allow.
        errors = random.choice((0, 1, 127))
        error = random.randint(-errors * count, errors * count)
        centred = random.uniform(-1, 1) * errors * count * (int(seen.variance[0]) / 256) ** 0.5
        channel |= {"total": error, "product": int(error * int(seen.mean[0]) / 256 + centred)}
    return channel


def record_bytes(channel: dict[str, Any]) -> NDArray[np.uint8]:
    """The 128 bytes of a record."""
    record = np.zeros(RECORD_BYTES // 8, np.int64)
    for item in RECORD:
        record[item.offset // 8] = channel[item.name]
    return record.view(np.uint8)
