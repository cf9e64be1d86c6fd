"""Reads pickles of plain containers and 8-bit arrays, and nothing else.

A pickle is a program: it may name any function of any module and call it. Here every name but a handful is refused, and
those few do not reach NumPy either: they are stand-ins that only record an array's type, shape and bytes.
"""

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError

#: Longest pickle that is read: a CIFAR-10 batch has 31 MB.
MAX_PICKLE_BYTES = 64 << 20


def load_plain_pickle(raw: bytes, source: str) -> object:
    """The object in a pickle: dict, list, tuple, str, bytes, numbers, and uint8 arrays, which come out as NumPy arrays.

    Understands what Python 2 wrote (its strings come out as bytes) and every later protocol.

    Args:
        raw: the whole file.
        source: name of the file, for messages.

    Raises:
        DataError: the pickle is cut short, followed by something else, too long, or names anything else; it is not run.
    """
    if len(raw) > MAX_PICKLE_BYTES:
        raise DataError(f"{source} has {len(raw)} bytes: no batch has more than {MAX_PICKLE_BYTES}, use the original file")
    stream = io.BytesIO(raw)
    try:
        loaded = _PlainUnpickler(stream, source).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may fail in any opcode, with any exception
        reason = str(error) or type(error).__name__
        raise DataError(f"{source} is not a complete pickle ({reason}): fetch or unpack it again") from error
    if stream.tell() != len(raw):
        raise DataError(
            f"{source} has {len(raw) - stream.tell()} bytes after the end of its pickle: fetch or unpack it again"
        )
    return _resolve(loaded, source)


class _PlainUnpickler(pickle.Unpickler):
    """Gives fresh stand-ins for the allowed names, so that nothing a pickle does to them outlives it."""

    def __init__(self, stream: io.BytesIO, source: str) -> None:
        super().__init__(stream, encoding="bytes")
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise DataError(
                f"{self._source} asks to use {module}.{name}, which an image file has no need of: it was refused and nothing "
                "was run; do not trust this copy, fetch the original release"
            )
        return stand_in()

    def persistent_load(self, pid: object) -> Any:
        raise DataError(f"{self._source} refers to an object outside of itself ({pid!r}): fetch the original release")


class _RecordedType:
    """Stands for numpy.dtype: keeps its name; the byte order that follows does not matter for 8 bits."""

    __slots__ = ("name",)

    def __init__(self, name: object) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        pass


class _RecordedArray:
    """Stands for numpy.ndarray: keeps what an array's state says, and builds the array only after it was checked."""

    __slots__ = ("content", "fortran", "shape", "type")

    def __init__(self) -> None:
        self.content: object = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _version, self.shape, self.type, self.fortran, self.content = state

    def build(self, source: str) -> NDArray[np.uint8]:
        content = self.content
        if not isinstance(content, bytes | bytearray):
            raise DataError(f"{source} holds an array without its bytes: fetch or unpack it again")
        name = self.type.name if isinstance(self.type, _RecordedType) else self.type
        if name not in ("u1", "|u1", "uint8"):
            raise DataError(f"{source} holds an array of type {name!r}: expected u1, 8-bit pixels")
        shape = self.shape
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise DataError(f"{source} holds an array of shape {shape!r}: expected a tuple of sizes")
        if math.prod(shape) != len(content):
            raise DataError(
                f"{source} holds an array of shape {list(shape)}, but {len(content)} bytes instead of {math.prod(shape)}: "
                "fetch or unpack it again"
            )
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if self.fortran else "C")


def _type_stand_in() -> Callable[..., _RecordedType]:
    return lambda name, *_flags: _RecordedType(name)


def _array_stand_in() -> Callable[..., _RecordedArray]:
    return lambda *_arguments: _RecordedArray()


def _buffer_stand_in() -> Callable[..., _RecordedArray]:
    def from_buffer(content: object, dtype: object, shape: object, order: object) -> _RecordedArray:
        array = _RecordedArray()
        array.__setstate__((1, shape, dtype, order == "F", bytes(content) if isinstance(content, bytearray) else content))
        return array

    return from_buffer


def _encode_stand_in() -> Callable[[str, str], bytes]:
    """Stands for _codecs.encode, with which protocols 0 to 2 of Python 3 write bytes: one encoding is ever used."""
    return lambda text, _encoding="latin1": text.encode("latin1")


#: Everything a pickled batch may name. NumPy moved its internals in version 2, hence both spellings.
_STAND_INS: dict[tuple[str, str], Callable[[], Any]] = {
    ("numpy", "dtype"): _type_stand_in,
    ("numpy", "ndarray"): object,
    ("_codecs", "encode"): _encode_stand_in,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array_stand_in for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _buffer_stand_in for core in ("core", "_core")},
}


def _resolve(loaded: object, source: str) -> object:
    """The recorded arrays of a top-level container, built."""
    if isinstance(loaded, dict):
        return {key: _resolve_leaf(value, source) for key, value in loaded.items()}
    return _resolve_leaf(loaded, source)


def _resolve_leaf(value: object, source: str) -> object:
    return value.build(source) if isinstance(value, _RecordedArray) else value
