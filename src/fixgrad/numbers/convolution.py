"""The three integer convolutions of training: FF, NG and WG, each by definition and as an exact GEMM.

With stride s, padding p and dilation d, the output pixel (i, j) and the tap (u, v) meet the input pixel
(r, q) = (i*s + u*d - p, j*s + v*d - p), where that lies inside the image. Over all those positions (the
talk's "training process" slide: y = W x, dx = W^T dy, dW = dy x^T)

    FF  y[b,o,i,j]  = sum over c,u,v  of x[b,c,r,q]  * w[o,c,u,v]      feed-forward
    NG  dx[b,c,r,q] = sum over o,i,j  of dy[b,o,i,j] * w[o,c,u,v]      neuron gradient
    WG  dw[o,c,u,v] = sum over b,i,j  of dy[b,o,i,j] * x[b,c,r,q]      weight gradient

where c runs over the input channels of the group of o. The `_reference` functions read just like that, in
int64. The fast ones lower them to matrix products (im2col, Chellapilla et al., 2006), which
`fixgrad.numbers.gemm` proves exact, with the batch innermost as in the accelerator's memory: a pixel of one
channel for all images is contiguous.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers.accumulate import Accumulated, wrap32
from fixgrad.numbers.gemm import FLOAT32_LIMIT, ExactSums, accumulated, check_int64, exact_sums, magnitude

#: Elements (4 bytes each) that the buffers of one tile may hold together: 64 MB.
TILE_ELEMENTS = 1 << 24


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """How the taps of a convolution's kernel move over the image. Pairs are (vertical, horizontal).

    Attributes:
        stride: pixels between neighbouring outputs, >= 1.
        padding: rows or columns of zeros on either side, >= 0.
        dilation: pixels between neighbouring taps, >= 1.
        groups: the channels are cut into this many groups, each of which is convolved alone, >= 1.

    Raises:
        UsageError: a field out of range or of the wrong type.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            pair = getattr(self, name)
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(_is_count(value, least) for value in pair)):
                raise UsageError(f"convolution {name} is {pair!r}: give two integers >= {least}, (vertical, horizontal)")
        if not _is_count(self.groups, 1):
            raise UsageError(f"convolution groups is {self.groups!r}: give an integer >= 1")

    def output_size(self, h: int, w: int, kh: int, kw: int) -> tuple[int, int]:
        """Size (OH, OW) of the output of an h x w image and a kh x kw kernel.

        floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1 in either direction.

        Raises:
            UsageError: the kernel does not fit into the padded image.
        """
        sizes = []
        for axis, size, kernel in ((0, h, kh), (1, w, kw)):
            padded, reach = size + 2 * self.padding[axis], self.dilation[axis] * (kernel - 1) + 1
            if size < 1 or kernel < 1 or reach > padded:
                raise UsageError(
                    f"a {kh}x{kw} kernel with dilation {self.dilation} on a {h}x{w} image with padding "
                    f"{self.padding}: it reaches over {reach} pixels of {padded}; use a larger image, more "
                    "padding or a smaller kernel"
                )
            sizes.append((padded - reach) // self.stride[axis] + 1)
        return sizes[0], sizes[1]


#: Stride 1, no padding, no dilation, one group.
UNIT_GEOMETRY = ConvGeometry()


def conv_forward_reference(
    x: NDArray[np.integer], w: NDArray[np.integer], geometry: ConvGeometry = UNIT_GEOMETRY
) -> Accumulated:
    """FF by definition, in int64: `conv_forward` without its speed."""
    conv = _Convolution.of_forward(x, w, geometry)
    conv.check_sums("FF", x, w)
    x, w = x.astype(np.int64), w.astype(np.int64)
    y = np.zeros((conv.batch, conv.outputs, *conv.output_size), np.int64)
    for i, j, u, v, r, q in conv.meetings():
        for o, c in conv.group_channels():
            y[:, o, i, j] += x[:, c, r, q] @ w[o, :, u, v].T
    return wrap32(y)


def conv_input_gradient_reference(
    dy: NDArray[np.integer],
    w: NDArray[np.integer],
    input_size: tuple[int, int],
    geometry: ConvGeometry = UNIT_GEOMETRY,
) -> Accumulated:
    """NG by definition, in int64: `conv_input_gradient` without its speed."""
    conv = _Convolution.of_input_gradient(dy, w, input_size, geometry)
    conv.check_sums("NG", dy, w)
    dy, w = dy.astype(np.int64), w.astype(np.int64)
    dx = np.zeros((conv.batch, conv.channels, *conv.input_size), np.int64)
    for i, j, u, v, r, q in conv.meetings():
        for o, c in conv.group_channels():
            dx[:, c, r, q] += dy[:, o, i, j] @ w[o, :, u, v]
    return wrap32(dx)


def conv_weight_gradient_reference(
    x: NDArray[np.integer],
    dy: NDArray[np.integer],
    kernel_size: tuple[int, int],
    geometry: ConvGeometry = UNIT_GEOMETRY,
) -> Accumulated:
    """WG by definition, in int64: `conv_weight_gradient` without its speed."""
    conv = _Convolution.of_weight_gradient(x, dy, kernel_size, geometry)
    conv.check_sums("WG", x, dy)
    x, dy = x.astype(np.int64), dy.astype(np.int64)
    dw = np.zeros((conv.outputs, conv.group_inputs, *conv.kernel_size), np.int64)
    for i, j, u, v, r, q in conv.meetings():
        for o, c in conv.group_channels():
            dw[o, :, u, v] += dy[:, o, i, j].T @ x[:, c, r, q]
    return wrap32(dw)


def conv_forward(x: NDArray[np.integer], w: NDArray[np.integer], geometry: ConvGeometry = UNIT_GEOMETRY) -> Accumulated:
    """FF: the accumulators of a convolution. y = W * im2col(x), tile by tile of images and output rows.

    Args:
        x: activation codes, [B, C, H, W].
        w: weight codes, [O, C/groups, kh, kw].
        geometry: stride, padding, dilation, groups.

    Returns:
        [B, O, OH, OW], and whether an exact sum lay outside of 32 bits.

    Raises:
        UsageError: operands that are not integers, or shapes that do not match.
    """
    conv = _Convolution.of_forward(x, w, geometry)
    x_max, w_max = conv.check_sums("FF", x, w)
    weights = conv.weight_matrix(w, w_max)
    y = np.empty((conv.batch, conv.outputs, *conv.output_size), np.int32)
    overflow = False
    for images, rows in conv.tiles():
        tile = accumulated(exact_sums(weights, conv.im2col(x[images], rows, x_max), w_max, x_max))
        y[images, :, rows] = tile.values.reshape(conv.output_shape(images, rows)).transpose(3, 0, 1, 2)
        overflow |= tile.overflow
    return Accumulated(y, overflow)


def conv_input_gradient(
    dy: NDArray[np.integer],
    w: NDArray[np.integer],
    input_size: tuple[int, int],
    geometry: ConvGeometry = UNIT_GEOMETRY,
) -> Accumulated:
    """NG: the gradient of the input. dx = col2im(W^T * dy).

    Args:
        dy: error codes, [B, O, OH, OW].
        w: weight codes, [O, C/groups, kh, kw].
        input_size: (H, W) of the input, which a stride leaves open.
        geometry: as in the forward pass.

    Returns:
        [B, C, H, W], and whether an exact sum lay outside of 32 bits.

    Raises:
        UsageError: operands that are not integers, or shapes that do not match.
    """
    conv = _Convolution.of_input_gradient(dy, w, input_size, geometry)
    dy_max, w_max = conv.check_sums("NG", dy, w)
    transposed = conv.weight_matrix(w, w_max).swapaxes(1, 2)
    bound = conv.input_gradient_bound(transposed, dy_max)
    dx = np.empty((conv.batch, conv.channels, *conv.input_size), np.int32)
    overflow = False
    for images in conv.image_tiles():
        sums = np.zeros(conv.padded_shape(images), _sum_type(bound))
        for rows in conv.row_tiles():
            errors = conv.pixel_matrix(dy[images], rows, dy_max)
            conv.add_col2im(sums, exact_sums(transposed, errors, w_max, dy_max).values, rows)
        tile = accumulated(ExactSums(conv.without_padding(sums), bound))
        dx[images] = tile.values.transpose(3, 0, 1, 2)
        overflow |= tile.overflow
    return Accumulated(dx, overflow)


def conv_weight_gradient(
    x: NDArray[np.integer],
    dy: NDArray[np.integer],
    kernel_size: tuple[int, int],
    geometry: ConvGeometry = UNIT_GEOMETRY,
) -> Accumulated:
    """WG: the gradient of the weights, summed over the batch. dW = dy * im2col(x)^T, summed over the tiles.

    Args:
        x: activation codes, [B, C, H, W].
        dy: error codes, [B, O, OH, OW].
        kernel_size: (kh, kw), which a stride leaves open.
        geometry: as in the forward pass.

    Returns:
        [O, C/groups, kh, kw], and whether an exact sum lay outside of 32 bits.

    Raises:
        UsageError: operands that are not integers, or shapes that do not match.
    """
    conv = _Convolution.of_weight_gradient(x, dy, kernel_size, geometry)
    x_max, dy_max = conv.check_sums("WG", x, dy)
    bound = conv.terms("WG") * x_max * dy_max
    dw: NDArray[Any] = np.zeros((conv.outputs, conv.group_inputs, *conv.kernel_size), _sum_type(bound))
    for images, rows in conv.tiles():
        errors = conv.pixel_matrix(dy[images], rows, dy_max)
        products = exact_sums(errors, conv.im2col(x[images], rows, x_max).swapaxes(1, 2), dy_max, x_max)
        dw += products.values.astype(dw.dtype, copy=False).reshape(dw.shape)
    return accumulated(ExactSums(dw, bound))


@dataclass(frozen=True, slots=True)
class _Convolution:
    """Sizes of one convolution, checked, and its lowering to matrices.

    Matrices are stacks over the groups. A column of im2col and of the pixel matrix is one output pixel of one
    image, in the order (row, column, image); a row of im2col is one tap, in the order (channel, u, v).
    """

    batch: int
    channels: int
    outputs: int
    input_size: tuple[int, int]
    kernel_size: tuple[int, int]
    output_size: tuple[int, int]
    geometry: ConvGeometry

    @classmethod
    def of_forward(cls, x: NDArray[Any], w: NDArray[Any], geometry: ConvGeometry) -> "_Convolution":
        _check_codes(x=x, w=w)
        (batch, channels, height, width), (outputs, group_inputs, kh, kw) = x.shape, w.shape
        _check_channels(channels, outputs, geometry.groups)
        if group_inputs * geometry.groups != channels:
            raise UsageError(
                f"weights {w.shape} take {group_inputs} channels in each of {geometry.groups} groups: "
                f"the input {x.shape} has {channels}"
            )
        size = geometry.output_size(height, width, kh, kw)
        return cls(batch, channels, outputs, (height, width), (kh, kw), size, geometry)

    @classmethod
    def of_input_gradient(
        cls, dy: NDArray[Any], w: NDArray[Any], input_size: tuple[int, int], geometry: ConvGeometry
    ) -> "_Convolution":
        _check_codes(dy=dy, w=w)
        batch, outputs = dy.shape[:2]
        channels, (kh, kw) = w.shape[1] * geometry.groups, w.shape[2:]
        _check_channels(channels, outputs, geometry.groups)
        if w.shape[0] != outputs:
            raise UsageError(f"weights {w.shape} have {w.shape[0]} output channels: the error {dy.shape} has {outputs}")
        conv = cls(
            batch,
            channels,
            outputs,
            input_size,
            (kh, kw),
            geometry.output_size(*input_size, kh, kw),
            geometry,
        )
        conv._check_error_size(dy)
        return conv

    @classmethod
    def of_weight_gradient(
        cls, x: NDArray[Any], dy: NDArray[Any], kernel_size: tuple[int, int], geometry: ConvGeometry
    ) -> "_Convolution":
        _check_codes(x=x, dy=dy)
        (batch, channels, height, width), outputs = x.shape, dy.shape[1]
        _check_channels(channels, outputs, geometry.groups)
        if dy.shape[0] != batch:
            raise UsageError(f"the error {dy.shape} is of {dy.shape[0]} images: the input {x.shape} has {batch}")
        size = geometry.output_size(height, width, *kernel_size)
        conv = cls(batch, channels, outputs, (height, width), kernel_size, size, geometry)
        conv._check_error_size(dy)
        return conv

    @property
    def group_inputs(self) -> int:
        return self.channels // self.geometry.groups

    @property
    def group_outputs(self) -> int:
        return self.outputs // self.geometry.groups

    @property
    def group_taps(self) -> int:
        """Products of one output: rows of im2col in a group."""
        return self.group_inputs * prod(self.kernel_size)

    def check_sums(self, phase: str, a: NDArray[Any], b: NDArray[Any]) -> tuple[int, int]:
        """Magnitudes of the operands.

        Raises:
            UsageError: their sums may not fit into 63 bits.
        """
        a_max, b_max = magnitude(a), magnitude(b)
        check_int64(self.terms(phase), a_max, b_max)
        return a_max, b_max

    def terms(self, phase: str) -> int:
        """Products in a sum of FF, NG or WG, at most."""
        return {
            "FF": self.group_taps,
            "NG": self.group_outputs * prod(self.kernel_size),
            "WG": self.batch * prod(self.output_size),
        }[phase]

    def meetings(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Each output pixel (i, j), tap (u, v), and the pixel (r, q) inside the image that they meet."""
        (sh, sw), (ph, pw), (dh, dw) = self.geometry.stride, self.geometry.padding, self.geometry.dilation
        for i, j, u, v in product(*map(range, (*self.output_size, *self.kernel_size))):
            r, q = i * sh + u * dh - ph, j * sw + v * dw - pw
            if 0 <= r < self.input_size[0] and 0 <= q < self.input_size[1]:
                yield i, j, u, v, r, q

    def group_channels(self) -> Iterator[tuple[slice, slice]]:
        """The output and the input channels of each group."""
        for group in range(self.geometry.groups):
            yield (
                slice(group * self.group_outputs, (group + 1) * self.group_outputs),
                slice(group * self.group_inputs, (group + 1) * self.group_inputs),
            )

    def image_tiles(self) -> Iterator[slice]:
        """Parts of the batch whose buffers stay below TILE_ELEMENTS, of one image at least."""
        step = max(1, TILE_ELEMENTS // self._elements_of(self.output_size[0]))
        for start in range(0, self.batch, step):
            yield slice(start, min(start + step, self.batch))

    def row_tiles(self) -> Iterator[slice]:
        """All output rows at once, or parts of them, down to one row, where an image is too large."""
        rows = self.output_size[0]
        step = rows
        while step > 1 and self._elements_of(step) > TILE_ELEMENTS:
            step = (step + 1) // 2
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        return product(self.image_tiles(), self.row_tiles())

    def weight_matrix(self, w: NDArray[Any], w_max: int) -> NDArray[Any]:
        """[groups, outputs of a group, taps]."""
        shape = (self.geometry.groups, self.group_outputs, self.group_taps)
        return w.astype(_carrier(w_max)).reshape(shape)

    def pixel_matrix(self, dy: NDArray[Any], rows: slice, dy_max: int) -> NDArray[Any]:
        """[groups, outputs of a group, pixels] of the errors [images, O, OH, OW]."""
        pixels = dy[:, :, rows].transpose(1, 2, 3, 0).astype(_carrier(dy_max), order="C")
        return pixels.reshape(self.geometry.groups, self.group_outputs, prod(pixels.shape[1:]))

    def im2col(self, x: NDArray[Any], rows: slice, x_max: int) -> NDArray[Any]:
        """[groups, taps, pixels] of x [images, C, H, W]: what each tap sees at each pixel of the rows."""
        (kh, kw), (dh, dw), (sh, sw) = self.kernel_size, self.geometry.dilation, self.geometry.stride
        windows = sliding_window_view(self._patch(x, rows, x_max), (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(1, 2))
        taps = windows[:, ::sh, ::sw, :, ::dh, ::dw].transpose(0, 4, 5, 1, 2, 3)
        return taps.reshape(self.geometry.groups, self.group_taps, prod(taps.shape[3:]))

    def _patch(self, x: NDArray[Any], rows: slice, x_max: int) -> NDArray[Any]:
        """The part of the padded input that the output rows see: [C, rows, columns, images]."""
        (sh, sw), (ph, pw), (dh, dw) = self.geometry.stride, self.geometry.padding, self.geometry.dilation
        top = rows.start * sh - ph
        height = (rows.stop - rows.start - 1) * sh + dh * (self.kernel_size[0] - 1) + 1
        width = (self.output_size[1] - 1) * sw + dw * (self.kernel_size[1] - 1) + 1
        first = max(top, 0)
        last = max(first, min(top + height, self.input_size[0]))
        columns = max(0, min(width - pw, self.input_size[1]))
        patch = np.zeros((self.channels, height, width, x.shape[0]), _carrier(x_max))
        inside = patch[:, first - top : last - top, pw : pw + columns]
        inside[...] = x[:, :, first:last, :columns].transpose(1, 2, 3, 0)
        return patch

    def output_shape(self, images: slice, rows: slice) -> tuple[int, int, int, int]:
        """[O, rows, OW, images]."""
        return self.outputs, rows.stop - rows.start, self.output_size[1], images.stop - images.start

    def padded_shape(self, images: slice) -> tuple[int, int, int, int]:
        """[C, H + 2*ph, W + 2*pw, images]."""
        (h, w), (ph, pw) = self.input_size, self.geometry.padding
        return self.channels, h + 2 * ph, w + 2 * pw, images.stop - images.start

    def without_padding(self, padded: NDArray[Any]) -> NDArray[Any]:
        """[C, H, W, images]."""
        (h, w), (ph, pw) = self.input_size, self.geometry.padding
        return padded[:, ph : ph + h, pw : pw + w]

    def add_col2im(self, sums: NDArray[Any], products: NDArray[Any], rows: slice) -> None:
        """Add [groups, taps, pixels] where im2col read them, tap by tap, in the type of `sums`."""
        (sh, sw), (dh, dw), (kh, kw) = self.geometry.stride, self.geometry.dilation, self.kernel_size
        count, columns = rows.stop - rows.start, self.output_size[1]
        taps = products.reshape(self.channels, kh, kw, count, columns, sums.shape[3])
        for u, v in product(range(kh), range(kw)):
            top, left = rows.start * sh + u * dh, v * dw
            seen = sums[:, top : top + (count - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
            seen += taps[:, u, v].astype(sums.dtype, copy=False)

    def input_gradient_bound(self, transposed: NDArray[Any], dy_max: int) -> int:
        """Largest possible |dx|: the L1 norm of all weights of an input channel, times dy_max."""
        shape = (self.channels, self.terms("NG"))
        norms = np.abs(transposed).reshape(shape).sum(axis=1, dtype=np.float64)
        # Float64 sums of integers are exact below 2**53; beyond, this is not the bound that decides.
        return int(norms.max(initial=0.0)) * dy_max

    def _elements_of(self, rows: int) -> int:
        """Buffers for that many output rows of an image: im2col, and input and output twice."""
        padded = prod(self.padded_shape(slice(0, 1)))
        pixels = rows * self.output_size[1]
        return max(1, 2 * padded + pixels * (self.channels * prod(self.kernel_size) + 2 * self.outputs))

    def _check_error_size(self, dy: NDArray[Any]) -> None:
        if dy.shape[2:] != self.output_size:
            raise UsageError(
                f"the error {dy.shape} is {dy.shape[2]}x{dy.shape[3]}: the output of a {self.input_size} "
                f"image and a {self.kernel_size} kernel with {self.geometry} is "
                f"{self.output_size[0]}x{self.output_size[1]}"
            )


def _carrier(largest: int) -> type[np.float32] | type[np.int64]:
    """A type that holds the codes: float32, ready for the GEMM, unless they are too wide."""
    return np.float32 if largest <= FLOAT32_LIMIT else np.int64


def _sum_type(bound: int) -> type[np.float32] | type[np.int32] | type[np.int64]:
    """The quickest type in which no partial sum of a sum within the bound is rounded or wrapped."""
    if bound <= FLOAT32_LIMIT:
        return np.float32
    return np.int32 if bound < 1 << 31 else np.int64


def _check_codes(**operands: NDArray[Any]) -> None:
    for name, operand in operands.items():
        if not np.issubdtype(operand.dtype, np.integer):
            raise UsageError(f"{name} of a convolution is {operand.dtype}: pass integer codes (Format.encode)")
        if operand.ndim != 4:
            raise UsageError(f"{name} of a convolution has shape {operand.shape}: it must have 4 dimensions")


def _check_channels(channels: int, outputs: int, groups: int) -> None:
    for name, count in (("input", channels), ("output", outputs)):
        if count % groups:
            raise UsageError(f"{count} {name} channels cannot be cut into {groups} groups: choose a divisor of {count}")
