"""What happens to each element where tensors join, are pooled, dropped or normalised. The interface.

Feature maps are [images, rows, columns, channels], vectors [images, features]. All functions write into `out`, int32
accumulators that are then requantised like those of a product. `TorchJoining` computes in eager PyTorch on any device,
`NumbaJoining` fuses each function into one pass over the CPU's memory; both give the same integers.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.normalisation import BackwardMap, ForwardMap
from fixgrad.network.windows import Span, reciprocal
from fixgrad.numbers import StreamKey
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.pointwise import Placement


class Averages(NamedTuple):
    """Windows of an average pooling: what they cover of rows and columns, and the reciprocals of their sizes [rows, columns]."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    reciprocals: NDArray[np.int64]


def averages(rows: list[Span], columns: list[Span]) -> Averages:
    """The windows as arrays: rows and columns are [outputs, 2], start and stop."""
    sizes = np.outer([span.counted for span in rows], [span.counted for span in columns])
    table = np.array([[reciprocal(int(size)) for size in row] for row in sizes], np.int64)
    return Averages(_ends(rows), _ends(columns), table)


def _ends(spans: list[Span]) -> NDArray[np.int64]:
    return np.array([(span.start, span.stop) for span in spans], np.int64)


class Joining(Protocol):
    """See above."""

    def align(self, codes: Tensor, left: int, out: Tensor, channel: int, add: bool) -> None:
        """int8 codes times 2**left (rounded to nearest where negative) in, or added to, the channels of `out` from `channel` on."""

    def drop(self, codes: Tensor, factor: int, threshold: int, key: StreamKey, place: Placement, out: Tensor) -> None:
        """int8 codes times `factor`, 0 where the random bits of the element are below `threshold`."""

    def average(self, maps: Tensor, windows: Averages, out: Tensor) -> None:
        """Sum of each window times its reciprocal."""

    def average_error(self, errors: Tensor, windows: Averages, out: Tensor) -> None:
        """To each pixel, the errors of the windows that hold it times their reciprocals."""

    def slide_maxima(self, maps: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor) -> None:
        """Maximum of each window of codes, in the type of `maps`."""

    def slide_errors(
        self, maps: Tensor, pooled: Tensor, errors: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor
    ) -> None:
        """The error of each window at its first maximum in raster order, added up; zero elsewhere."""

    def depthwise(self, maps: Tensor, weights: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor) -> None:
        """FF of a convolution with a kernel for each channel; `weights` are int8 [taps, channels], taps in raster order."""

    def depthwise_error(
        self, errors: Tensor, weights: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor
    ) -> None:
        """NG of it: `out` has the shape of the input."""

    def depthwise_gradient(self, maps: Tensor, errors: Tensor, window: tuple[int, int], geometry: ConvGeometry) -> Tensor:
        """WG of it: int64 [taps, channels]."""

    def code_sums(self, codes: Tensor) -> Tensor:
        """int64 [2, channels]: sums of codes and of their squares over all but the channels."""

    def product_sums(self, errors: Tensor, codes: Tensor) -> Tensor:
        """int64 [2, channels]: sums of errors, and of errors times codes."""

    def normalise(self, codes: Tensor, mapped: ForwardMap, ceiling: int, out: Tensor) -> None:
        """Accumulators of a normalisation, at most `ceiling`."""

    def denormalise(self, errors: Tensor, codes: Tensor, mapped: BackwardMap, out: Tensor) -> None:
        """Accumulators of the error of what a normalisation reads."""
