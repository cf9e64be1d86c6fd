"""Record a step in RTL beside the timing simulator for docs/results.

    python benchmarks/record_cycles.py OUT.json -- --model vgg11 --batch 32 --density talk --machine kcu1500 --steps 1

Runs `fixgrad verify ... --executors functional,rtl --cycles --json`, and writes what it says with command, commit, machine and
the time that it took. Measured: cycles of the RTL, whose memory has the timing of the machine's DRAM standard; simulated: the
others. docs/gateware.md has the rows as a table, which a test compares: --page prints it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fixgrad.machine import identity
from fixgrad.machine.files import machine_named
from fixgrad.simulate.cycle_comparison import PhaseCycles, table

FIXED = ["--executors", "functional,rtl", "--cycles"]


def record(options: list[str]) -> dict[str, Any]:
    """Run the command and put together what it says.

    Raises:
        subprocess.CalledProcessError: it failed, or the executors differ.
    """
    start = time.perf_counter()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    command = [sys.executable, "-m", "fixgrad.cli", "verify", *options, *FIXED, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = {"wall": round(time.perf_counter() - start), "processor": round(used.ru_utime + used.ru_stime)}
    machine = machine_named(options[options.index("--machine") + 1])
    return {
        "command": " ".join(["fixgrad", "verify", *options, *FIXED]),
        "commit": commit,
        "machine": {"identity": identity(machine), **machine.to_dict()},
        "kind": "rtl: measured in Verilator, memory by the DRAM model; simulated: the timing simulator",
        "seconds": seconds,
        **json.loads(done.stdout),
    }


def main() -> None:
    """Write a record, or print the table of one."""
    parser = argparse.ArgumentParser(description="Record a step in RTL beside the timing simulator.")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--page", action="store_true", help="print the table of a record that is there")
    parser.add_argument("options", nargs="*", help="of fixgrad verify")
    arguments = parser.parse_args()
    if arguments.page:
        print(table([PhaseCycles(**row) for row in json.loads(arguments.out.read_text())["cycles"]]))
        return
    arguments.out.write_text(json.dumps(record(arguments.options), indent=2) + "\n")


if __name__ == "__main__":
    main()
