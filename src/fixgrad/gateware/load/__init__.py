"""LOAD: from memory into the step table, input buffers, lane memories and kernel queues."""

from fixgrad.gateware.load.unit import LoadUnit

__all__ = ["LoadUnit"]
