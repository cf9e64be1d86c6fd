"""Layers that join tensors, or change single elements of one: sums, concatenations, dropping, and the rectifier with a ceiling."""

from dataclasses import dataclass
from typing import ClassVar

from fixgrad.errors import UsageError
from fixgrad.network.layers import Layer, Shape

#: The widest distance between the finest and the coarsest input of a sum: what is finer is rounded to that.
MAX_ALIGNMENT = 15
#: Most inputs of a sum: 2**7 codes of 7 + 15 bits stay within 31 bits.
MOST_INPUTS = 128
#: Fractional bits of 1 / (1 - p).
DROPOUT_FRAC = 14
#: The largest probability to drop an element: beyond it, 127 / (1 - p) at 14 fractional bits leaves 31 bits.
LARGEST_DROPOUT = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU6(Layer):
    """A rectifier with a ceiling: min(max(x, 0), 6), as in MobileNet."""

    kind: ClassVar[str] = "relu6"

    @property
    def rectifies(self) -> bool:
        return True

    @property
    def ceiling(self) -> int | None:
        return 6

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Layer):
    """The sum of tensors of one shape; the residual addition.

    Attributes:
        relu: whether the sums are rectified before they are requantised.
    """

    kind: ClassVar[str] = "add"
    rescales: ClassVar[bool] = True
    relu: bool = False

    @property
    def rescales_error(self) -> bool:
        return False

    @property
    def rectifies(self) -> bool:
        return self.relu

    def output_shape(self, *inputs: Shape) -> Shape:
        if not 2 <= len(inputs) <= MOST_INPUTS:
            raise UsageError(f"{self.name} adds {len(inputs)} tensors: it takes 2 to {MOST_INPUTS}")
        if len(set(inputs)) > 1:
            shapes = ", ".join(map(str, inputs))
            raise UsageError(f"{self.name} adds tensors of the shapes {shapes}: they must be equal (nothing is broadcast)")
        return inputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(Layer):
    """Tensors one behind the other along the channels (or features)."""

    kind: ClassVar[str] = "concat"
    rescales: ClassVar[bool] = True

    @property
    def rescales_error(self) -> bool:
        return False

    def output_shape(self, *inputs: Shape) -> Shape:
        if not 2 <= len(inputs) <= MOST_INPUTS:
            raise UsageError(f"{self.name} joins {len(inputs)} tensors: it takes 2 to {MOST_INPUTS}")
        if len({shape[1:] for shape in inputs}) > 1:
            shapes = ", ".join(map(str, inputs))
            raise UsageError(f"{self.name} joins tensors of the shapes {shapes}: all but the channels must be equal")
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class PadChannels(Layer):
    """Zero channels before and behind those of a tensor, as in the shortcuts without weights of ResNet.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 3.3, option (A).
    """

    kind: ClassVar[str] = "pad_channels"
    before: int
    behind: int

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if self.before < 0 or self.behind < 0:
            raise UsageError(f"{self.name} pads {self.before} and {self.behind} channels: give 0 or more")
        return (self.before + shape[0] + self.behind, *shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout(Layer):
    """Sets elements to zero with probability `p` while training, and multiplies the others by 1 / (1 - p).

    Source: N. Srivastava et al., "Dropout", JMLR 2014, in the form that leaves evaluation alone.
    """

    kind: ClassVar[str] = "dropout"
    rescales: ClassVar[bool] = True
    p: float

    @property
    def factor(self) -> int:
        """1 / (1 - p) with DROPOUT_FRAC fractional bits."""
        return int(2**DROPOUT_FRAC / (1 - self.p) + 0.5)

    @property
    def threshold(self) -> int:
        """An element is dropped where its 32 random bits are below this number."""
        return int(self.p * 2.0**32)

    def output_shape(self, *inputs: Shape) -> Shape:
        if not 0 <= self.p <= LARGEST_DROPOUT:
            raise UsageError(f"{self.name} drops with probability {self.p}: choose 0 to {LARGEST_DROPOUT}")
        return inputs[0]
