"""How fast the DRAM models serve transfers: closed forms in Python, and bank by bank in compiled loops.

    python benchmarks/dram_speed.py [--standard ddr4_2400]

The first run ever compiles the loops of the second one, before the clock starts.
"""

import argparse
import time

from fixgrad.simulate.dram import Channel, Fidelity, Transfer, open_channel

#: Transfers of a training step, of up to 500 bursts; and the bytes of one of VGG-11, in pieces of 64 KB.
TRANSFERS, STEP_BYTES, PIECE = 100_000, 54_000_000, 65_536


def seconds(channel: Channel, transfers: list[Transfer]) -> float:
    """Processor time to serve them."""
    begin = time.process_time()
    for transfer in transfers:
        channel.serve(0.0, transfer)
    return time.process_time() - begin


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description="How fast the DRAM models serve transfers.")
    parser.add_argument("--standard", default="ddr4_2400")
    standard = parser.parse_args().standard
    mixed = [Transfer(64 * (1 + i % 500), i % 3 == 0, i * 4096) for i in range(TRANSFERS)]
    print(f"closed forms: {TRANSFERS:,} transfers in {seconds(open_channel(standard), mixed):.2f} s")
    banks = open_channel(standard, Fidelity.BANK_LEVEL)
    banks.serve(0.0, Transfer(64))
    pieces = [Transfer(PIECE, i % 3 == 0, i * PIECE) for i in range(STEP_BYTES // PIECE)]
    print(f"bank by bank: {STEP_BYTES / 1e6:.0f} MB in {seconds(banks, pieces):.2f} s")


if __name__ == "__main__":
    main()
