"""The functional simulator: executes a program's encoded instructions on a memory image, bit for bit."""

from fixgrad.simulate.functional.fault import IllegalInstruction
from fixgrad.simulate.functional.order import Order, extreme_orders
from fixgrad.simulate.functional.run import Observer, run

__all__ = ["IllegalInstruction", "Observer", "Order", "extreme_orders", "run"]
