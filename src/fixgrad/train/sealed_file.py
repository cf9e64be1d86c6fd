"""Files that are whole or not there, and that say so: safetensors with a checksum, replaced atomically."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError

#: The single entry of the file's metadata. There is only one because safetensors writes several in any order.
_ENTRY = "fixgrad"


class Sealed(NamedTuple):
    """Contents of a sealed file: arrays by name, and a dictionary of JSON values."""

    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`: whoever opens it sees the old file or the new one, whatever is killed when.

    The bytes are on the disk before the name points to them, and the name is on the disk when this returns.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_sealed(path: Path, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
    """Write arrays and JSON values as one safetensors file; equal contents give equal bytes."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    text = _canonical(values)
    entry = _canonical({"sha256": _digest(contiguous, text), "values": text})
    write_atomically(path, save(contiguous, {_ENTRY: entry}))


def read_sealed(path: Path) -> Sealed:
    """Read what `write_sealed` wrote.

    Raises:
        DataError: the file cannot be read, is cut short, was altered, or is no such file; the message names it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        entry = json.loads(header["__metadata__"][_ENTRY])
        digest, text = entry["sha256"], entry["values"]
        values = json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {len(content):,} bytes that are no complete checkpoint ({error})") from None
    found = _digest(arrays, text)
    if found != digest:
        raise DataError(f"{path} was altered: its contents have the SHA-256 {found[:16]}..., it claims {str(digest)[:16]}...")
    return Sealed(arrays, values)


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    """SHA-256 of the values and of every array with its name, type and shape, in the order of the names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
