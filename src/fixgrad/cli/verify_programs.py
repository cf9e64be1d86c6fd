"""`fixgrad verify --program` and `--random`: programs without a network, in RTL against the functional simulator."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fixgrad.machine.generate import RandomProgram

#: Bytes of memory behind a random program's image: writes that go astray show there.
_SPARE_BYTES = 1 << 16


def run_case(path: Path, trace: Path | None, hostile: int | None) -> bool:
    """A program that a failed comparison has saved; says what differs. Returns whether nothing does."""
    from fixgrad.machine.generate_file import load_case

    return _compare([load_case(path)], trace, hostile, None)


def run_random(machine: str, count: int, seed: int, hostile: int | None, failures: Path) -> bool:
    """`count` random programs from a seed on; the first one that differs is shrunk and saved."""
    from fixgrad.machine.files import machine_named
    from fixgrad.machine.generate import random_program

    chosen = machine_named(machine)
    return _compare([random_program(chosen, each) for each in range(seed, seed + count)], None, hostile, failures)


def _compare(programs: "list[RandomProgram]", trace: Path | None, hostile: int | None, failures: Path | None) -> bool:
    from fixgrad.cli.rtl_device import rtl_device
    from fixgrad.machine.generate_file import save_case
    from fixgrad.simulate.differential import difference, memory_after, shrunk

    size = max(len(program.image) for program in programs) + _SPARE_BYTES
    device, cycles = rtl_device(programs[0].machine, size, trace=trace, hostile=hostile), 0
    device.timeout = 1 << 16

    def fails(program: "RandomProgram") -> bool:
        return difference(program, memory_after(program), device) is not None

    for program in programs:
        start = device.bench.cycle
        found = difference(program, memory_after(program), device)
        cycles += device.bench.cycle - start
        if found is None:
            continue
        print(f"seed {program.seed}: {found.reason}")
        if failures is not None:
            path = failures / f"{program.machine.name}-{program.seed}.npz"
            small = shrunk(program, fails) if fails(program) else program
            again = difference(small, memory_after(small), device)
            save_case(small, path, again.reason if again else found.reason)
            print(f"shrunk to {len(small.instructions)} instructions in {path}, listing in {path.with_suffix('.txt')}")
        return False
    device.bench.close()
    names = "a program" if len(programs) == 1 else f"{len(programs):,} programs"
    print(f"functional = rtl: equal in every byte of memory after {names} on {programs[0].machine.name}, {cycles:,} cycles")
    return True
