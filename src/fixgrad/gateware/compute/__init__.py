"""The unit COMPUTE of one group: an issued instruction on its way to the group's PEs, and back what became of it."""

from fixgrad.gateware.compute.unit import ComputeUnit

__all__ = ["ComputeUnit"]
