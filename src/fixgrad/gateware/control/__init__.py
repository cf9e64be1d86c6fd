"""Control of the machine: registers, fetch, decoding from the instruction table, dispatch, counters, start and stop."""

from fixgrad.gateware.control.front_end import FrontEnd
from fixgrad.gateware.control.layouts import body, body_layout, issued_layout, step_entry_layout
from fixgrad.gateware.control.supervisor import UNIT_FAULT

__all__ = ["UNIT_FAULT", "FrontEnd", "body", "body_layout", "issued_layout", "step_entry_layout"]
