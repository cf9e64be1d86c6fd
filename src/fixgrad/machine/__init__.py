"""What an accelerator is: its parameters, the presets, the instruction set, the register map."""

from fixgrad.machine.encoding import (
    Instruction,
    InstructionError,
    ProgramError,
    decode,
    decode_program,
    disassemble,
    disassemble_program,
    encode_program,
    explain_mismatch,
    identity,
    identity_record,
    instruction_set_digest,
)
from fixgrad.machine.parameters import Device, Latencies, Machine, Memory
from fixgrad.machine.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "Device",
    "Instruction",
    "InstructionError",
    "Latencies",
    "Machine",
    "Memory",
    "ProgramError",
    "decode",
    "decode_program",
    "disassemble",
    "disassemble_program",
    "encode_program",
    "explain_mismatch",
    "identity",
    "identity_record",
    "instruction_set_digest",
    "preset",
]
