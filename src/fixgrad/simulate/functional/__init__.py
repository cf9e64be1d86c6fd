"""The functional simulator: executes a program's encoded instructions on a memory image, bit for bit."""

from fixgrad.simulate.functional.executor import FunctionalExecutor, host_step, read_state
from fixgrad.simulate.functional.fault import IllegalInstruction
from fixgrad.simulate.functional.order import Order, extreme_orders
from fixgrad.simulate.functional.recorder import Recorder
from fixgrad.simulate.functional.run import Observer, run
from fixgrad.simulate.functional.verify import (
    Mismatch,
    Subject,
    Verification,
    functional_subject,
    reference_subject,
    verify,
)

__all__ = [
    "FunctionalExecutor",
    "IllegalInstruction",
    "Mismatch",
    "Observer",
    "Order",
    "Recorder",
    "Subject",
    "Verification",
    "extreme_orders",
    "functional_subject",
    "host_step",
    "read_state",
    "reference_subject",
    "run",
    "verify",
]
