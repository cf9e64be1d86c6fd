"""How WG and UPDATE share the read port of a PE's gradient memory.

A step that ends a tap of a kernel reads its gradient, and waits in a cycle in which UPDATE takes one; other steps go on. UPDATE
leaves a cycle to PEs that wait, but takes `GRADIENTS_IN_A_ROW` gradients between two such cycles. It leaves none to a COMPUTE
whose every step ends a tap: that has fewer steps than UPDATE has parameters, so it is UPDATE that must not wait.
Gateware: `pe/issue.py`, `update/parameter_walk.py`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
#: Gradients that UPDATE takes, at least, before it leaves a cycle to PEs that wait for one.
GRADIENTS_IN_A_ROW = 3


class Holds(NamedTuple):
    """Cycles by which a parameter delays the COMPUTE, and the COMPUTE UPDATE, for each parameter that is taken meanwhile."""

    compute: Values
    update: Values


def gradient_holds(tap: Values, apart: NDArray[np.int64]) -> Holds:
    """What the two cost each other, in the mean.

    Args:
        tap: steps of a tap.
        apart: PEs, of those that UPDATE reads at once, that end their taps in cycles of their own. All that wait go in the same one.
    """
    between = np.maximum(tap + 1, GRADIENTS_IN_A_ROW + 1)
    resting = np.minimum(apart / between, 1 / (GRADIENTS_IN_A_ROW + 1))
    asks = tap > 1
    return Holds(np.where(asks, (1 - tap / between) / (1 - resting), 1.0), np.where(asks, resting / (1 - resting), 0.0))
