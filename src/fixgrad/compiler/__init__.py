"""Network and machine to program: stages, tiling, balance, memory layout, instructions."""

from fixgrad.compiler.image import MemoryLayout
from fixgrad.compiler.infeasible import Infeasible, InfeasibleError
from fixgrad.compiler.layout import Region
from fixgrad.compiler.program import Program
from fixgrad.compiler.program_file import check_machine, load_program, save_program
from fixgrad.compiler.schedule import Schedule, ScheduledPhase
from fixgrad.compiler.step import check, compile_step

__all__ = [
    "Infeasible",
    "InfeasibleError",
    "MemoryLayout",
    "Program",
    "Region",
    "Schedule",
    "ScheduledPhase",
    "check",
    "check_machine",
    "compile_step",
    "load_program",
    "save_program",
]
