"""Synthesis: what a machine takes of its chip by Yosys, and on ECP5 its placement, clock and bitstream."""

from fixgrad.gateware.synthesis.parts import Part, parts_of
from fixgrad.gateware.synthesis.run import Mapped, synthesise
from fixgrad.gateware.synthesis.technology import Counts, Technology, technology_of

__all__ = ["Counts", "Mapped", "Part", "Technology", "parts_of", "synthesise", "technology_of"]
