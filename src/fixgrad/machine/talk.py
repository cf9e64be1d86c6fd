"""The figures that the talk prints for its machine: VGG-11, batch 32, on the preset `kcu1500`. Published, not ours."""

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

#: Where the figures come from.
SOURCE = "the talk, slide 'Performance breakdown (simulation)'"
#: Its totals: time of a step in us and equivalent GOP/s (slide of the comparison with other platforms).
STEP_US = 45_912.0
STEP_GOPS = 641.1
#: The network and batch that the figures are for.
NETWORK, BATCH = "vgg11", 32
TOTAL = "total"

#: Where its table contradicts itself, and what is taken instead.
SLIPS = (
    "The NG rows add up to 10,176 us, but the total says 10,988: 812 us of an NG of conv1, printed '-', must be inside.",
    "The third block of columns is WG, though its heading says 'Neuron Gradient' a second time.",
    "dense8 is 0.0003 GOP a pass (5,120 MACs an image), not 0.003.",
    "Its energy ratio to the GPU is 22.11 / 8.35 = 2.65 by its own comparison; the abstract says 2.86.",
)


class Used(NamedTuple):
    """What a machine takes of its chip: LUTs (those that are memory too), registers, memory blocks, multiplier slices."""

    lut: int
    ff: int
    blocks: int
    dsp: int


#: What the talk's machine takes (slide 'Evaluation'), and what ours may take: its row, with slices for the products of
#: the update and of the loss.
USED = Used(199_111, 249_122, 1_060, 1_030)
LIMITS = USED._replace(dsp=1_100)


class Figure(NamedTuple):
    """One layer (or `TOTAL`) and phase of the talk's table.

    Attributes:
        us: time of a batch in microseconds.
        gops: equivalent GOP/s: what was pruned counts as done.
        bound: 'compute' or 'memory' (its marks C and B); None for the total.
        utilisation: share of the multipliers' cycles, 0 to 1; None for the total.
    """

    us: float
    gops: float
    bound: str | None
    utilisation: float | None


@cache
def figures() -> dict[tuple[str, str], Figure]:
    """The table by (layer or 'total', phase 'ff', 'ng' or 'wg'). What the talk prints as '-' is absent."""
    found: dict[tuple[str, str], Figure] = {}
    for row in _rows():
        for phase in ("ff", "ng", "wg"):
            if row[f"{phase}_us"]:
                share = row[f"{phase}_util"]
                found[row["layer"], phase] = Figure(
                    float(row[f"{phase}_us"]),
                    float(row[f"{phase}_gops"]),
                    row[f"{phase}_bound"] or None,
                    float(share) if share else None,
                )
    return found


@cache
def densities() -> dict[str, float]:
    """The share that each layer keeps, as in `fixgrad.sparse.TALK_DENSITIES`, from the same table."""
    return {row["layer"]: float(row["density"]) for row in _rows() if row["density"]}


def _rows() -> list[dict[str, str]]:
    text = (resources.files("fixgrad.machine") / "data" / "talk_vgg11.csv").read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
