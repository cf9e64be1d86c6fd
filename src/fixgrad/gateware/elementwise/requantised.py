"""What the elementwise unit and the post-processor that it borrows say to each other."""

from amaranth.lib import data

from fixgrad.gateware.post.post_lane import SETTING
from fixgrad.machine import Machine
from fixgrad.numbers import ACCUMULATOR_BITS


def requantised_layout(machine: Machine) -> data.StructLayout:
    """What the unit gives a post-processor. `active`: it is the unit's; `begin`: nothing has been measured yet; `valid`: a word of
    accumulators, activations that mask them, its first random element."""
    return data.StructLayout(
        {
            **dict.fromkeys(("active", "begin", "valid"), 1),
            "setting": SETTING,
            "images": 8,
            "accumulators": ACCUMULATOR_BITS * machine.lanes,
            "activations": 8 * machine.lanes,
            "element": 32,
        }
    )
