"""What a machine takes of its chip, as the timing report shows it."""

from fixgrad.machine import Machine
from fixgrad.machine.energy import Design


def resources_of(machine: Machine) -> dict[str, float]:
    return {}


def design_of(machine: Machine) -> Design | None:
    from fixgrad.machine.energy_data import load_energy_table

    table = load_energy_table()
    if machine.device.part not in table.parts:
        return None
    luts = table.anchor.luts
    return Design(
        machine.device.part, luts, machine.macs, machine.clock_mhz, machine.memory.standard, machine.memory.channels
    )
