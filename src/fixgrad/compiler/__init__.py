"""Network and machine to program: stages, tiling, balance, memory layout, instructions."""

from fixgrad.compiler.infeasible import Infeasible, InfeasibleError
from fixgrad.compiler.image import MemoryLayout
from fixgrad.compiler.layout import Region
from fixgrad.compiler.program import Program
from fixgrad.compiler.step import compile_step

__all__ = ["Infeasible", "InfeasibleError", "MemoryLayout", "Program", "Region", "compile_step"]
