"""How fast the exact integer convolutions do FF, NG and WG of the talk's VGG-11 on 32x32 images, without its linear layers.

    python benchmarks/convolution_step.py [--batch 32] [--repeat 3]
"""

import argparse
import time

import numpy as np

from fixgrad.numbers.convolution import ConvGeometry, conv_forward, conv_input_gradient, conv_weight_gradient

#: Inputs, outputs, rows.
VGG11 = [(3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 256, 8), (256, 512, 4), (512, 512, 4), (512, 512, 2), (512, 512, 2)]
KERNEL, GEOMETRY = (3, 3), ConvGeometry(padding=(1, 1))


def seconds(batch: int) -> float:
    """Wall-clock time of one step; its codes are random."""
    rng, found = np.random.default_rng(0), 0.0
    for channels, outputs, rows in VGG11:
        x = rng.integers(-127, 128, (batch, channels, rows, rows), np.int8)
        w = rng.integers(-127, 128, (outputs, channels, *KERNEL), np.int8)
        dy = rng.integers(-127, 128, (batch, outputs, rows, rows), np.int8)
        start = time.perf_counter()
        conv_forward(x, w, GEOMETRY)
        conv_input_gradient(dy, w, (rows, rows), GEOMETRY)
        conv_weight_gradient(x, dy, KERNEL, GEOMETRY)
        found += time.perf_counter() - start
    return found


def main() -> None:
    """Print the fastest of some."""
    parser = argparse.ArgumentParser(description="FF, NG and WG of VGG-11's convolutions in exact integers.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    macs = sum(inputs * outputs * rows * rows * 9 for inputs, outputs, rows in VGG11) * options.batch
    fastest = min(seconds(options.batch) for _ in range(options.repeat))
    print(f"{3 * 2 * macs / 1e9:.1f} GOP in {fastest:.2f} s: {6 * macs / 1e9 / fastest:.1f} GOP/s")


if __name__ == "__main__":
    main()
