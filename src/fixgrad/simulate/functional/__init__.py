"""The functional simulator: executes a program's encoded instructions on a memory image, bit for bit."""

from fixgrad.simulate.functional.device import FunctionalDevice
from fixgrad.simulate.functional.executor import FunctionalExecutor
from fixgrad.simulate.functional.fault import IllegalInstruction
from fixgrad.simulate.functional.order import Order, extreme_orders
from fixgrad.simulate.functional.recorder import Recorder
from fixgrad.simulate.functional.run import Observer, execute, run
from fixgrad.simulate.functional.verify import (
    Mismatch,
    Subject,
    Verification,
    device_subject,
    functional_subject,
    reference_subject,
    verify,
)

__all__ = [
    "FunctionalDevice",
    "FunctionalExecutor",
    "IllegalInstruction",
    "Mismatch",
    "Observer",
    "Order",
    "Recorder",
    "Subject",
    "Verification",
    "device_subject",
    "execute",
    "extreme_orders",
    "functional_subject",
    "reference_subject",
    "run",
    "verify",
]
