"""Time to encode all weights of the talk's VGG-11 (9.75 M) in CSB: the median and spread of the repeats.

    python benchmarks/csb_encode.py [--repeats 20] [--block 32 32] [--seed 1]

Weights are random 8-bit codes without zeros; the masks keep the talk's densities, then all. Wall-clock time
of the encoding alone (weights and masks exist already), of one thread.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

from fixgrad.sparse import CSB, TALK_DENSITIES, Mask, prune

SHAPES: Mapping[str, tuple[int, ...]] = {
    "conv1": (64, 3, 3, 3),
    "conv2": (128, 64, 3, 3),
    "conv3_1": (256, 128, 3, 3),
    "conv3_2": (256, 256, 3, 3),
    "conv4_1": (512, 256, 3, 3),
    "conv4_2": (512, 512, 3, 3),
    "conv5_1": (512, 512, 3, 3),
    "conv5_2": (512, 512, 3, 3),
    "dense6": (512, 512),
    "dense7": (512, 512),
    "dense8": (10, 512),
}
"""Weights of the talk's VGG-11 with its CIFAR-10 head."""

Weights = dict[str, np.ndarray]
Masks = dict[str, Mask]


def random_weights(seed: int) -> Weights:
    """Codes of -127..127 without 0, so that at density 1 every element is stored with or without a mask."""
    rng = np.random.default_rng(seed)
    return {name: _codes(rng, shape) for name, shape in SHAPES.items()}


def _codes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    magnitude = rng.integers(1, 128, shape, dtype=np.int8)
    return np.where(rng.random(shape) < 0.5, magnitude, -magnitude)


def encode(weights: Weights, masks: Masks | None, block: tuple[int, int]) -> list[CSB]:
    """One CSB a layer; without masks what is not 0 is stored."""
    found = []
    for name, weight in weights.items():
        mask = masks[name] if masks else None
        if weight.ndim == 4:
            found.append(CSB.from_kernels(weight, mask, block=block))
        else:
            found.append(CSB.from_dense(weight, block=block, mask=mask))
    return found


def timed(work: Callable[[], object], repeats: int) -> str:
    """Median, least and greatest milliseconds of `repeats` runs after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return f"{statistics.median(times):7.1f} ms  ({min(times):.1f} to {max(times):.1f}, {repeats} repeats)"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to encode the talk's VGG-11 in CSB.")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--block", type=int, nargs=2, default=(32, 32), metavar=("R", "C"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    block = (options.block[0], options.block[1])
    weights = random_weights(options.seed)
    talk = {name: prune(weight, TALK_DENSITIES[name], layer=name) for name, weight in weights.items()}
    full = {name: Mask.full(weight.shape) for name, weight in weights.items()}
    count = sum(weight.size for weight in weights.values())
    versions = f"NumPy {np.__version__}, Python {platform.python_version()}"
    print(f"VGG-11, {count:,} weights, block {block}, {versions}")
    for title, masks in (("talk's densities", talk), ("density 1.0", full), ("no mask (from zeros)", None)):
        encoded = encode(weights, masks, block)
        stored = sum(csb.data.size for csb in encoded)
        size = sum(csb.nbytes().total for csb in encoded)
        span = timed(lambda masks=masks: encode(weights, masks, block), options.repeats)  # type: ignore[misc]
        print(f"{title:21} {stored / count:6.1%} stored, {size / 1e6:6.2f} MB: {span}")


if __name__ == "__main__":
    main()
