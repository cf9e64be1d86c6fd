"""Many instructions of one kind at once, from columns of field values to bytes and back, by the instruction table.

`fixgrad.machine.encoding` encodes one instruction; a program has tens of thousands.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.encoding import InstructionError, Place, layout
from fixgrad.machine.instructions import BY_NAME, INSTRUCTION_BYTES

_WORDS = INSTRUCTION_BYTES // 8
#: Field name -> value of each instruction, int64.
Columns = Mapping[str, NDArray[np.int64]]


def encode_columns(name: str, columns: Mapping[str, NDArray[np.int64]], count: int) -> NDArray[np.uint8]:
    """`count` instructions of the kind `name` as bytes, [count, 128]; fields without a column are 0.

    Raises:
        InstructionError: a value does not fit its field.
    """
    words = np.zeros((count, _WORDS), np.uint64)
    for place in layout(name).values():
        field = place.field.name
        values = np.full(count, BY_NAME[name].opcode) if field == "opcode" else columns.get(field)
        if values is not None:
            _check(name, place, values)
            _put(words, place, values.astype(np.uint64) & np.uint64(place.mask))
    return words.astype("<u8").view(np.uint8)


def check_column(name: str, field: str, values: NDArray[Any]) -> None:
    """Whether `values` fit a field of the kind `name`.

    Raises:
        InstructionError: one does not; the message says which.
    """
    _check(name, layout(name)[field], values)


def decode_columns(name: str, encoded: NDArray[np.uint8]) -> Columns:
    """The fields of instructions [count, 128] of the kind `name`, header included, int64 [count] each."""
    words = np.ascontiguousarray(encoded).view("<u8").astype(np.uint64)
    return {field: _get(words, place) for field, place in layout(name).items()}


def _put(words: NDArray[Any], place: Place, raw: NDArray[np.uint64]) -> None:
    word, shift = divmod(place.bit, 64)
    words[:, word] |= raw << np.uint64(shift)
    if shift + place.field.bits > 64:
        words[:, word + 1] |= raw >> np.uint64(64 - shift)


def _get(words: NDArray[np.uint64], place: Place) -> NDArray[np.int64]:
    word, shift = divmod(place.bit, 64)
    raw = words[:, word] >> np.uint64(shift)
    if shift + place.field.bits > 64:
        raw = raw | (words[:, word + 1] << np.uint64(64 - shift))
    values = (raw & np.uint64(place.mask)).astype(np.int64)
    if place.field.signed:
        values -= (values >> (place.field.bits - 1)) << place.field.bits
    return values


def _check(name: str, place: Place, values: NDArray[Any]) -> None:
    if values.size and (values.min() < place.low or values.max() > place.high):
        wrong = int(values[(values < place.low) | (values > place.high)][0])
        raise InstructionError(f"{name}: {place.field.name} is {wrong}: it must be {place.low} to {place.high}")
