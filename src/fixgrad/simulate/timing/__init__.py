"""The timing simulator: cycles of a compiled program, event by event, and where they go. See docs/timing.md."""

from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.attribution import Cause
from fixgrad.simulate.timing.result import LayerTiming, PhaseTiming, StepTiming, WaterfallStep
from fixgrad.simulate.timing.run import Simulation
from fixgrad.simulate.timing.step import simulate, simulate_step, timing_of
from fixgrad.simulate.timing.timeline import timeline, write_timeline

__all__ = [
    "Assumptions",
    "Cause",
    "LayerTiming",
    "PhaseTiming",
    "Simulation",
    "StepTiming",
    "WaterfallStep",
    "simulate",
    "simulate_step",
    "timeline",
    "timing_of",
    "write_timeline",
]
