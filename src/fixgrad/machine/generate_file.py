"""A program with its memory in one file, to run it again on any device; beside it the listing, for people."""

import json
import zipfile
from pathlib import Path

import numpy as np

from fixgrad.errors import DataError
from fixgrad.machine.encoding import Instruction, decode_program, disassemble_program, encode_program
from fixgrad.machine.generate import RandomProgram
from fixgrad.machine.generate_memory import Region
from fixgrad.machine.instructions import INSTRUCTION_BYTES
from fixgrad.machine.parameters import Machine

FORMAT = "fixgrad-case-1"


def save_case(program: RandomProgram, path: Path, remark: str = "") -> None:
    """Write `program` to `path` (.npz) and its listing, with a remark, to a .txt beside it."""
    header = {
        "format": FORMAT,
        "machine": program.machine.to_dict(),
        "seed": program.seed,
        "instructions": len(program.instructions),
        "program_address": program.program_address,
        "regions": [list(region) for region in program.regions],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(
            file, allow_pickle=False, header=np.frombuffer(json.dumps(header).encode(), np.uint8), image=program.image
        )
    places = "\n".join(f"{region.address:#10x} {region.bytes:8} bytes  {region.name}" for region in program.regions)
    listing = disassemble_program(program.instructions)
    title = f"machine {program.machine.name}, seed {program.seed}"
    path.with_suffix(".txt").write_text(f"{title}\n{remark}\n\n{listing}\n\n{places}\n", encoding="utf-8")


def load_case(path: Path) -> RandomProgram:
    """The program that `save_case` wrote.

    Raises:
        DataError: the file is missing or no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            header, image = json.loads(archive["header"].tobytes()), archive["image"]
        if header["format"] != FORMAT:
            raise DataError(f"{path} has the format {header['format']!r}: expected {FORMAT!r}")
        address, count = int(header["program_address"]), int(header["instructions"])
        return RandomProgram(
            Machine.from_dict(header["machine"]),
            int(header["seed"]),
            tuple(decode_program(image[address : address + count * INSTRUCTION_BYTES].tobytes())),
            image,
            address,
            tuple(Region(*region) for region in header["regions"]),
        )
    except OSError as problem:
        raise DataError(f"program file {path}: {problem.strerror or problem}") from None
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path} is no program file: {problem}") from None


def with_instructions(program: RandomProgram, instructions: tuple[Instruction, ...]) -> RandomProgram:
    """The same memory with another program, not longer than the old one, in the old one's place."""
    encoded = np.frombuffer(encode_program(instructions), np.uint8)
    image = program.image.copy()
    image[program.program_address : program.program_address + len(program.instructions) * INSTRUCTION_BYTES] = 0
    image[program.program_address : program.program_address + len(encoded)] = encoded
    return RandomProgram(
        program.machine, program.seed, instructions, image, program.program_address, program.regions
    )
