"""A program in one file: a NumPy archive with a JSON header, the encoded instructions and a checksum over all of it."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.code import EncodedCode
from fixgrad.compiler.graph_builder import build_graph
from fixgrad.compiler.image import MemoryLayout
from fixgrad.compiler.layout import Region, RegionTable
from fixgrad.compiler.matrix import KernelMatrix, alive_kernels, in_memory
from fixgrad.compiler.program import Program
from fixgrad.compiler.schedule import Schedule, ScheduledPhase
from fixgrad.compiler.stream import Label
from fixgrad.compiler.tiling import LayerTiling
from fixgrad.errors import DataError
from fixgrad.machine import Machine
from fixgrad.machine.encoding import explain_mismatch, identity_record, instruction_set_record
from fixgrad.machine.instruction_set import explain_instruction_set
from fixgrad.machine.instructions import INSTRUCTION_BYTES, kinds_of
from fixgrad.network import Network, Recipe

FORMAT = "fixgrad-program-2"
Arrays = dict[str, NDArray[Any]]


def save_program(program: Program, path: str | Path) -> None:
    """Write `program` to `path`; `load_program` gives an equal one."""
    labels = sorted(set(program.labels))
    number = {label: index for index, label in enumerate(labels)}
    table = program.layout.table
    header = {
        "format": FORMAT,
        "identity": identity_record(program.machine),
        "instruction_set": instruction_set_record(program.machine),
        "machine": program.machine.to_dict(),
        "network": program.network.to_dict(),
        "recipe": program.recipe.to_dict(),
        "batch": program.batch,
        "mode": program.mode,
        "count_padding": program.count_padding,
        "labels": labels,
        "block_rows": [tiling.block_rows for tiling in program.schedule.tilings],
        "schedule": [phase.to_dict() for phase in program.schedule.phases],
        "regions": [asdict(region) for region in table.regions.values()],
        "entries": table.entries,
        "registers": table.registers,
        "mask_shapes": {name: list(mask.shape) for name, mask in program.masks.items()},
    }
    arrays: Arrays = {
        "encoded": program.encoded,
        "kernel_counts": program.kernel_counts,
        "taps": program.taps,
        "label": np.array([number[label] for label in program.labels], np.uint16),
    }
    arrays |= {f"mask/{name}": np.packbits(mask) for name, mask in program.masks.items()}
    arrays |= {f"order/{name}": order.astype(np.uint32) for name, order in table.orders.items()}
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    checksum = np.frombuffer(_checksum(text, arrays), np.uint8)
    with Path(path).open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, header=text, checksum=checksum, **arrays)


def load_program(path: str | Path) -> Program:
    """The program that `save_program` wrote.

    Raises:
        DataError: the file is missing, damaged, or of another instruction set, of which the fields that differ are named.
    """
    text, arrays = _read(Path(path))
    try:
        header: dict[str, Any] = json.loads(text.tobytes())
        if header["format"] != FORMAT:
            raise DataError(f"{path} has the format {header['format']!r}: expected {FORMAT!r}; compile it again")
        different = explain_instruction_set(header["instruction_set"], Machine.from_dict(header["machine"]))
        if different:
            raise DataError(f"{path} is of another instruction set: {different}; compile it again")
        program = _program(header, arrays)
        _check(program)
    except DataError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, AssertionError) as problem:
        raise DataError(f"{path} is no program: {problem!r}; compile it again") from problem
    return program


def check_machine(program: Program, machine: Machine) -> None:
    """Refuse a machine other than the program's.

    Raises:
        DataError: with every field that differs.
    """
    different = explain_mismatch(machine, program.machine)
    if different:
        raise DataError(f"the program is for another machine: {different}; compile it for {machine.name}")


def _read(path: Path) -> tuple[NDArray[np.uint8], Arrays]:
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
    except OSError as problem:
        raise DataError(f"{path} cannot be read as a program: {problem.strerror or problem}") from problem
    except Exception as problem:  # zlib, struct, tokenize, ...: whatever damaged bytes run into
        raise DataError(f"{path} is no program, or a damaged one: {problem}; compile it again") from problem
    missing = {"header", "checksum", "encoded", "kernel_counts", "taps", "label"} - set(arrays)
    if missing:
        raise DataError(f"{path} is no program: it lacks {', '.join(sorted(missing))}; compile it again")
    text, checksum = arrays.pop("header"), arrays.pop("checksum")
    if _checksum(text, arrays) != checksum.tobytes():
        raise DataError(f"{path} is damaged: its checksum does not match; compile it again")
    return text, arrays


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """A member of the archive; never pickled objects, and never more bytes than its size in the archive says."""
    with archive.open(name) as member:
        data = member.read(archive.getinfo(name).file_size)
    return np.lib.format.read_array(BytesIO(data), allow_pickle=False)


def _checksum(text: NDArray[np.uint8], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    digest = hashlib.sha256(text.tobytes())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _program(header: dict[str, Any], arrays: Arrays) -> Program:
    machine, network = Machine.from_dict(header["machine"]), Network.from_dict(header["network"])
    recipe, graph = Recipe.from_dict(header["recipe"]), build_graph(network)
    masks = {
        name: _unpacked(arrays[f"mask/{name}"], int(np.prod(shape))).reshape(shape)
        for name, shape in header["mask_shapes"].items()
    }
    orders = {name.removeprefix("order/"): array.astype(np.int64) for name, array in arrays.items() if name.startswith("order/")}
    matrices = tuple(
        KernelMatrix(
            in_memory(
                stage,
                alive_kernels(stage, masks.get(f"{stage.name}.weight")),
                orders[stage.target.name],
                orders[stage.source.name],
            ),
            block_rows,
        )
        for stage, block_rows in zip(graph.stages, header["block_rows"], strict=True)
    )
    regions = {values["name"]: Region(**values) for values in header["regions"]}
    phases = tuple(ScheduledPhase.from_dict(values) for values in header["schedule"])
    labels = [Label(*item) for item in header["labels"]]
    mode = header["mode"]
    return Program(
        machine=machine,
        network=network,
        batch=header["batch"],
        recipe=recipe,
        mode=mode,
        count_padding=header["count_padding"],
        masks=masks,
        code=EncodedCode(arrays["encoded"].reshape(-1, INSTRUCTION_BYTES)),
        layout=MemoryLayout(
            table=RegionTable(regions, orders, header["entries"], header["registers"]),
            network=network,
            recipe=recipe,
            batch=header["batch"],
            lanes=machine.lanes,
            graph=graph,
            matrices=matrices,
            trains=mode == "train",
        ),
        labels=tuple(labels[number] for number in arrays["label"].tolist()),
        kernel_counts=arrays["kernel_counts"],
        taps=arrays["taps"],
        schedule=Schedule(_tilings(header["block_rows"], [stage.name for stage in graph.stages], phases), phases),
    )


def _unpacked(bits: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """The first `count` bits, as `numpy.packbits` left them; ValueError if there are not as many bytes as that takes."""
    if bits.shape != (-(-count // 8),):
        raise ValueError(f"a mask of {count} elements is in {bits.size} bytes")
    return np.unpackbits(bits, count=count).astype(np.bool_)


def _check(program: Program) -> None:
    """Raise ValueError where parts of a program do not belong together."""
    machine, computes = program.machine, len(program.positions["COMPUTE"])
    known = [kind.opcode for kind in kinds_of(machine)]
    each = (computes, machine.pes_per_group)
    belongs = {
        "batch": type(program.batch) is int and program.batch >= 1,
        "mode": program.mode in ("train", "forward"),
        "count_padding": type(program.count_padding) is bool,
        "encoded": program.encoded.dtype == np.uint8 and bool(np.isin(program.opcodes, known).all()),
        "label": len(program.labels) == len(program.encoded),
        "kernel_counts": program.kernel_counts.shape == (computes, machine.groups, machine.pes_per_group),
        "taps": program.taps.shape == each and program.taps.dtype.kind == program.kernel_counts.dtype.kind == "i",
        "regions": program.layout.regions["program"].bytes == program.encoded.size,
    }
    for name, does in belongs.items():
        if not does:
            raise ValueError(f"{name} does not belong to it")


def _tilings(block_rows: list[int], names: list[str], phases: tuple[ScheduledPhase, ...]) -> tuple[LayerTiling, ...]:
    chosen = {(phase.layer, phase.phase): phase.tiling for phase in phases}
    return tuple(
        LayerTiling(rows, chosen[name, "ff"], chosen.get((name, "ng")), chosen.get((name, "wg")))
        for name, rows in zip(names, block_rows, strict=True)
    )
