"""What `fixgrad verify` runs programs on, and how it tells of its progress."""

import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixgrad.cli.step_case import StepCase, compile_case

if TYPE_CHECKING:
    from fixgrad.compiler import Program
    from fixgrad.network import State
    from fixgrad.simulate.cycle_comparison import CycleComparison
    from fixgrad.simulate.functional import Subject
    from fixgrad.simulate.host import HostExecutor


class CaseDevices:
    """The program of a case, compiled when it is asked for, and the RTL that runs it."""

    def __init__(self, case: StepCase, machine: str, trace: Path | None = None, hostile: int | None = None) -> None:
        self.case, self.machine, self.trace, self.hostile = case, machine, trace, hostile
        self.program = cache(self._program)
        self._host: HostExecutor | None = None

    def _program(self) -> "Program":
        from fixgrad.machine.files import machine_named

        return compile_case(self.case, machine_named(self.machine), forward=False, count_padding=False)[0]

    def rtl(self, state: "State", steps: int) -> "Subject":
        """The RTL, built if need be."""
        from fixgrad.cli.rtl_device import rtl_device
        from fixgrad.simulate.functional import device_subject
        from fixgrad.simulate.host import HostExecutor

        program, start, say = self.program(), time.perf_counter(), ProgressLines()
        say(f"rtl: building {program.machine.name}")
        options: dict[str, Any] = {"trace": self.trace, "hostile": self.hostile}
        device = rtl_device(program.machine, program.layout.bytes, progress=say.cycles, **options)
        say(f"rtl: {program.machine.name} is built ({time.perf_counter() - start:,.1f} s)\n")
        self._host = HostExecutor(program, state, steps, device)
        return device_subject("rtl", self._host)

    def cycles(self) -> "CycleComparison":
        """Cycles of the RTL's last step against the timing simulator."""
        from fixgrad.simulate.cycle_comparison import compare_cycles
        from fixgrad.simulate.timing import simulate

        assert self._host is not None, "the RTL has not run"
        return compare_cycles(self.program(), self._host.outcome, simulate(self.program()))


class ProgressLines:
    """Lines on standard error: the last one is written over until it is complete; nothing where no one looks on."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def cycles(self, count: int) -> None:
        """The RTL has run for so many cycles."""
        self(f"rtl: {count:,} cycles")

    def step(self, number: int, subject: "Subject", seconds: float) -> None:
        """A subject has made a step."""
        rest = f", {text}" if (text := subject.summary()) else ""
        self(f"step {number}: {subject.name} {seconds:,.1f} s{rest}\n")
