"""Boolean masks: which kernels of a CONV weight, or which elements of an FC weight, are alive.

The talk prunes CONV layers by whole 2-D kernels and FC layers by single elements (slide "Pruning before
convergence"), so one array `bool [out, in]` describes either kind of layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Mask:
    """The alive kernels (CONV) or elements (FC) of one weight tensor; an immutable value.

    `alive` is bool [out, in]: entry (o, i) stands for the 2-D kernel `weight[o, i, :, :]` of a CONV weight
    [out, in, kh, kw], or for the element `weight[o, i]` of an FC weight [out, in].

    Raises `DataError` when `alive` is not a two-dimensional boolean array.
    """

    alive: BoolArray

    def __post_init__(self) -> None:
        given = np.asarray(self.alive)
        if given.dtype != np.bool_ or given.ndim != 2:
            raise DataError(f"mask: dtype {given.dtype} with {given.ndim} axes; give a bool array [out, in]")
        own = np.array(given, order="C")
        own.flags.writeable = False
        object.__setattr__(self, "alive", own)

    @classmethod
    def full(cls, weight_shape: Sequence[int]) -> Self:
        """The mask that keeps everything of a weight [out, in] or [out, in, kh, kw]."""
        check_weight_shape(weight_shape)
        return cls(np.ones(tuple(weight_shape[:2]), dtype=np.bool_))

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, cols = self.alive.shape
        return rows, cols

    @property
    def size(self) -> int:
        """How many kernels or elements there are, dead ones included."""
        return self.alive.size

    @property
    def count(self) -> int:
        """How many kernels or elements are alive."""
        return int(np.count_nonzero(self.alive))

    @property
    def density(self) -> float:
        """The share kept, 0 to 1; an empty tensor counts as 1 (nothing of it was pruned)."""
        return self.count / self.size if self.size else 1.0

    def expand(self, weight_shape: Sequence[int]) -> BoolArray:
        """The mask at the shape of its weight, [out, in] or [out, in, kh, kw]: a read-only view, no copy."""
        self.check_fits(weight_shape)
        axes = (1,) * (len(weight_shape) - 2)
        return np.broadcast_to(self.alive.reshape(*self.shape, *axes), tuple(weight_shape))

    def apply(self, weight: Array) -> Array:
        """A copy of `weight` ([out, in] or [out, in, kh, kw], any dtype) whose dead part is zero."""
        return np.where(self.expand(weight.shape), weight, np.zeros((), dtype=weight.dtype))

    def check_fits(self, weight_shape: Sequence[int]) -> None:
        """Raise `DataError` unless `weight_shape` is a weight of this mask's outputs and inputs."""
        check_weight_shape(weight_shape)
        if tuple(weight_shape[:2]) != self.shape:
            raise DataError(
                f"mask {list(self.shape)} does not fit a weight {list(weight_shape)}: "
                f"its first two axes (out, in) must be equal"
            )

    def __and__(self, other: Self) -> Self:
        """Alive in both."""
        if self.shape != other.shape:
            raise DataError(f"masks {list(self.shape)} and {list(other.shape)} differ in shape (out, in)")
        return type(self)(self.alive & other.alive)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.alive, other.alive)

    __hash__ = None  # type: ignore[assignment]  # compared by content, like an array

    def __repr__(self) -> str:
        return f"Mask({self.count} of {list(self.shape)} alive, density {self.density:.3f})"


def check_weight_shape(shape: Sequence[int]) -> None:
    """Raise `DataError` unless `shape` has the axes of an FC weight (2) or of a CONV weight (4)."""
    if len(shape) not in (2, 4):
        raise DataError(f"weight with {len(shape)} axes {list(shape)}: a mask is for [out, in] or [out, in, kh, kw]")
