"""The talk's "8x energy saving" of an 8-bit fixed-point multiplication over fp32, shown by several yardsticks."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from fixgrad.errors import UsageError
from fixgrad.machine.energy_data import load_energy_table

TALK_CLAIM = 8.0
"""Slide "Our Solution": 32-bit float multiplication to 8-bit fixed-point multiplication, "8x energy saving"."""


class Logic(NamedTuple):
    """Resources of one operator on a Xilinx chip."""

    lut: int
    ff: int
    dsp: int = 0


@dataclass(frozen=True, slots=True)
class Operators:
    """One row of the talk's table: operators of a number format in logic, and the multiply-add with DSP slices."""

    format: str
    multiplier: Logic
    adder: Logic
    multiply_add: Logic


@cache
def fpga_operators() -> dict[str, Operators]:
    """The talk's table by format (fp32, fp16, fixed32, fixed16, fixed8, fixed4)."""
    file = resources.files("fixgrad.machine") / "data" / "fpga_operators.toml"
    rows = tomllib.loads(file.read_text("utf-8"))["operator"]
    return {
        row["format"]: Operators(row["format"], Logic(**row["multiplier"]), Logic(**row["adder"]), Logic(**row["multiply_add"]))
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class Saving:
    """fp32 over 8-bit fixed point by one yardstick."""

    yardstick: str
    unit: str
    fp32: float
    fixed8: float
    source: str

    @property
    def ratio(self) -> float:
        return self.fp32 / self.fixed8


def multiplier_savings() -> tuple[Saving, ...]:
    """The claim by energy of an ASIC (Horowitz) and by logic of an FPGA (the talk's own table).

    The talk's 8 is close to its LUT table (9.4); the ASIC energies give more than twice as much.
    """
    energy, rows = load_energy_table(), fpga_operators()
    asic, fpga = "Horowitz, ISSCC 2014, 45 nm", "the talk's FPGA table (IEEE Micro 37(2), 2017)"
    float32, fixed8 = rows["fp32"], rows["fixed8"]
    multiply = energy["fp32_multiply"].value, energy["int8_multiply"].value
    accumulate = multiply[0] + energy["fp32_add"].value, multiply[1] + energy["int32_add"].value
    return (
        Saving("multiplier energy", "pJ", *multiply, asic),
        Saving("multiply and 32-bit accumulate energy", "pJ", *accumulate, asic),
        Saving("multiplier LUTs", "LUT", float32.multiplier.lut, fixed8.multiplier.lut, fpga),
        Saving("multiplier registers", "FF", float32.multiplier.ff, fixed8.multiplier.ff, fpga),
        Saving(
            "multiplier and adder LUTs",
            "LUT",
            float32.multiplier.lut + float32.adder.lut,
            fixed8.multiplier.lut + fixed8.adder.lut,
            fpga,
        ),
    )


def operators_of(number_format: str) -> Operators:
    """One row of the table. Raises UsageError for a format that it does not have."""
    try:
        return fpga_operators()[number_format]
    except KeyError:
        raise UsageError(f"no operators of format {number_format!r}; known are {', '.join(fpga_operators())}") from None
