"""Integers in gates: rounding, saturation, bounded shifts, the counter hash, memories that clear in one cycle."""
