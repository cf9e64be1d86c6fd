"""What Numba compiles with, and 32-bit operations that stay 32 bits wide.

Numba computes with integers of less than 64 bits in 64. Where an addition is cut back to 32 bits at once, LLVM narrows it; a
shift it does not, because it cannot know that the amount is below 32. One such shift makes a whole loop compute in vectors
of half as many elements. These shifts take amounts of 0 to 31.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiled on its first call, and kept on disk where a folder for it can be written."""
    try:
        jitted = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no such folder
        jitted = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Function, jitted)


def inlined(function: Function) -> Function:
    """Compiled into those that call it."""
    return cast(Function, numba.njit(inline="always", error_model="numpy")(function))


def _shift(operation: str, result: Any) -> Any:
    """A shift of 32-bit integers as LLVM has it."""

    def typed(_typing: Any, value: Any, amount: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pairs = zip(arguments, signature.args, strict=True)
            value, amount = (context.cast(builder, argument, kind, result) for argument, kind in pairs)
            return getattr(builder, operation)(value, amount)

        return result(value, amount), generate

    return intrinsic(typed)


#: uint32, bits that leave on the left are lost.
shift_left: Any = _shift("shl", types.uint32)
#: uint32, zeros come in on the left.
shift_right: Any = _shift("lshr", types.uint32)
#: int32, copies of the sign come in on the left.
shift_signed: Any = _shift("ashr", types.int32)
