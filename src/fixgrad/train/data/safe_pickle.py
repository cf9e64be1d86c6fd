"""Reads pickles of plain containers and 8-bit arrays, and nothing else.

A pickle is a program: it may name any function of any module and call it. Here every name but a handful is
refused, and those few do not reach NumPy either: they are stand-ins that only record an array's type, shape
and bytes, so a hostile file meets no code but this page and the unpickler itself.
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
    """The object in a pickle: containers, strings, numbers, and uint8 arrays, which come out as NumPy arrays.

    Understands what Python 2 wrote (its strings come out as bytes) and every later protocol. Arrays are
    understood at the top and as values of a dictionary at the top.

    Args:
        raw: the whole file.
        source: name of the file, for messages.

    Raises:
        DataError: the pickle is cut short, has something after its end, is too long, or names anything else.
    """
    if len(raw) > MAX_PICKLE_BYTES:
        raise DataError(
            f"{source} has {len(raw)} bytes, more than the {MAX_PICKLE_BYTES} of any batch: fetch it again"
        )
    stream = io.BytesIO(raw)
    try:
        loaded = _PlainUnpickler(stream, source).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may fail in any opcode, with any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source} is not a complete pickle ({reason}): fetch or unpack it again") from error
    rest = len(raw) - stream.tell()
    if rest:
        raise DataError(f"{source} has {rest} bytes after the end of its pickle: fetch or unpack it again")
    if isinstance(loaded, dict):
        return {key: _built(value, source) for key, value in loaded.items()}
    return _built(loaded, source)


class _PlainUnpickler(pickle._Unpickler):
    """Gives fresh stand-ins for the allowed names, so that nothing a pickle does to them outlives it.

    It is the standard library's unpickler in Python, because the one in C makes room for as many memo entries as a
    pickle says: seven bytes can claim 64 GB. A batch of CIFAR-10 takes it 30 ms.
    """

    def __init__(self, stream: io.BytesIO, source: str) -> None:
        super().__init__(stream, encoding="bytes")
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for ``module.name``; raises DataError for any but the few that an array needs."""
        make_stand_in = _STAND_INS.get((module, name))
        if make_stand_in is None:
            raise DataError(
                f"{self._source} asks for {module}.{name}, which a file of images has no need of: refused, "
                "nothing of it was run; fetch the original release"
            )
        return make_stand_in()

    def persistent_load(self, pid: object) -> Any:
        """Refused: raises DataError."""
        raise DataError(f"{self._source} refers to an object outside of itself: fetch the original release")


class _RecordedType:
    """Stands for a numpy.dtype: keeps its name. (The byte order that follows says nothing for 8 bits.)"""

    __slots__ = ("name",)

    def __init__(self, name: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        pass


class _RecordedArray:
    """Stands for a numpy.ndarray: keeps what the pickle says of it, to be checked before it is built."""

    __slots__ = ("content", "fortran", "shape", "type")

    def __init__(self) -> None:
        self.content: object = None
        self.type: object = None
        self.shape: object = None
        self.fortran: object = False

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _version, self.shape, self.type, self.fortran, self.content = state

    def build(self, source: str) -> NDArray[np.uint8]:
        """The array, uint8, on the pickle's own bytes; raises DataError if type, shape and bytes disagree."""
        content, shape = self.content, self.shape
        name = self.type.name if isinstance(self.type, _RecordedType) else self.type
        if name not in ("u1", "|u1", "uint8"):
            raise DataError(
                f"{source} holds an array of type {name!r:.40}, expected u1 (8-bit pixels): fetch it again"
            )
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise DataError(f"{source} holds an array of shape {shape!r:.80}, expected sizes: fetch it again")
        if not isinstance(content, bytes) or len(content) != math.prod(shape):
            found = len(content) if isinstance(content, bytes) else f"a {type(content).__name__} in place of"
            raise DataError(
                f"{source} holds an array of shape {list(shape)} with {found} bytes, expected "
                f"{math.prod(shape)}: fetch it again"
            )
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if self.fortran else "C")


def _built(value: object, source: str) -> object:
    return value.build(source) if isinstance(value, _RecordedArray) else value


def _dtype() -> Callable[..., _RecordedType]:
    def dtype(name: object, *_flags: object) -> _RecordedType:
        return _RecordedType(name)

    return dtype


def _reconstruct() -> Callable[..., _RecordedArray]:
    def reconstruct(*_arguments: object) -> _RecordedArray:
        return _RecordedArray()

    return reconstruct


def _frombuffer() -> Callable[..., _RecordedArray]:
    def frombuffer(content: object, dtype: object, shape: object, order: object) -> _RecordedArray:
        array = _RecordedArray()
        plain = bytes(content) if isinstance(content, bytearray) else content
        array.__setstate__((1, shape, dtype, order == "F", plain))
        return array

    return frombuffer


def _encode() -> Callable[[str, str], bytes]:
    """Protocols 0 to 2 of Python 3 write bytes as a call of _codecs.encode, always with latin1."""

    def encode(text: str, _encoding: str = "latin1") -> bytes:
        return text.encode("latin1")

    return encode


#: Everything a pickled batch may name. NumPy 2 moved its internals, hence both spellings.
_STAND_INS: dict[tuple[str, str], Callable[[], Any]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): object,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}
