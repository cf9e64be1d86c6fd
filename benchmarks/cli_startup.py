"""Time from `fixgrad --help` to its end: median and range over several runs of a new process.

    python benchmarks/cli_startup.py [--runs 10] [ARGUMENTS ...]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one `fixgrad ARGUMENTS` in a new process, its output thrown away."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fixgrad.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("arguments", nargs="*", help="command whose help to time (none: fixgrad itself)")
    options = parser.parse_args()
    arguments = [*options.arguments, "--help"]
    seconds(arguments)  # writes the byte code that later runs read
    times = sorted(seconds(arguments) for _ in range(options.runs))
    print(
        f"fixgrad {' '.join(arguments)}: median {statistics.median(times):.3f} s, "
        f"range {times[0]:.3f} to {times[-1]:.3f} s, {options.runs} runs "
        f"(measured, Python {sys.version.split()[0]}, {os.cpu_count()} cores)"
    )


if __name__ == "__main__":
    main()
