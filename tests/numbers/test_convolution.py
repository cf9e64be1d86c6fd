"""FF, NG and WG: the fast paths against the definitions, and these against SciPy's integer correlation."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import convolve2d, correlate2d

from fixgrad.errors import UsageError
from fixgrad.numbers import (
    Accumulated,
    ConvGeometry,
    conv_forward,
    conv_forward_reference,
    conv_input_gradient,
    conv_input_gradient_reference,
    conv_weight_gradient,
    conv_weight_gradient_reference,
    convolution,
)

Codes = NDArray[np.integer]
#: The longest sum of products of +-127 that fits into 32 bits.
LONGEST = (2**31 - 1) // 127**2


class Case:
    """Random codes of one layer: x, w and dy that fit together."""

    def __init__(self, batch: int, channels: int, size: tuple[int, int], outputs: int, kernel: tuple[int, int],
                 geometry: ConvGeometry, seed: int = 0) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.size, self.kernel, self.geometry = size, kernel, geometry
        output = geometry.output_size(*size, *kernel)
        self.x = rng.integers(-127, 128, (batch, channels, *size), np.int8)
        self.w = rng.integers(-127, 128, (outputs, channels // geometry.groups, *kernel), np.int8)
        self.dy = rng.integers(-127, 128, (batch, outputs, *output), np.int8)

    def fast(self) -> list[Accumulated]:
        return [
            conv_forward(self.x, self.w, self.geometry),
            conv_input_gradient(self.dy, self.w, self.size, self.geometry),
            conv_weight_gradient(self.x, self.dy, self.kernel, self.geometry),
        ]

    def reference(self) -> list[Accumulated]:
        return [
            conv_forward_reference(self.x, self.w, self.geometry),
            conv_input_gradient_reference(self.dy, self.w, self.size, self.geometry),
            conv_weight_gradient_reference(self.x, self.dy, self.kernel, self.geometry),
        ]

    def check(self) -> None:
        shapes = [self.dy.shape, self.x.shape, self.w.shape]
        for fast, reference, shape in zip(self.fast(), self.reference(), shapes, strict=True):
            assert fast.values.shape == reference.values.shape == shape
            assert fast.values.dtype == np.int32
            assert (fast.values == reference.values).all()
            assert fast.overflow is reference.overflow


def spread(image: Codes, steps: tuple[int, int]) -> NDArray[np.int64]:
    """Zeros between neighbours: the kernel of a dilated, or the error of a strided convolution, as an image."""
    rows, columns = image.shape
    wide = np.zeros(((rows - 1) * steps[0] + 1, (columns - 1) * steps[1] + 1), np.int64)
    wide[:: steps[0], :: steps[1]] = image
    return wide


def oracle(case: Case) -> list[NDArray[np.int64]]:
    """FF, NG and WG by SciPy on int64, image by image and channel by channel."""
    geometry, (ph, pw) = case.geometry, case.geometry.padding
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    padded = np.pad(case.x.astype(np.int64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    y, dx, dw_ = (np.zeros(a.shape, np.int64) for a in (case.dy, padded, case.w))
    inputs, outputs = case.w.shape[1], case.w.shape[0] // geometry.groups
    for b, o, c in itertools.product(range(case.x.shape[0]), range(case.w.shape[0]), range(inputs)):
        channel = o // outputs * inputs + c
        kernel, error = spread(case.w[o, c], (dh, dw)), spread(case.dy[b, o], (sh, sw))
        y[b, o] += correlate2d(padded[b, channel], kernel, "valid")[::sh, ::sw]
        full = convolve2d(error, kernel, "full")
        dx[b, channel, : full.shape[0], : full.shape[1]] += full
        taps = correlate2d(padded[b, channel], error, "valid")[::dh, ::dw]
        dw_[o, c] += taps[: case.kernel[0], : case.kernel[1]]
    return [y, dx[:, :, ph : ph + case.size[0], pw : pw + case.size[1]], dw_]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    pairs = {name: st.tuples(st.integers(low, high), st.integers(low, high))
             for name, low, high in (("stride", 1, 3), ("padding", 0, 4), ("dilation", 1, 3))}  # fmt: skip
    geometry = draw(st.builds(ConvGeometry, **pairs, groups=st.integers(1, 3)))
    size, kernel = (draw(st.tuples(st.integers(1, high), st.integers(1, high))) for high in (9, 4))
    for axis in range(2):
        assume(size[axis] + 2 * geometry.padding[axis] > geometry.dilation[axis] * (kernel[axis] - 1))
    channels, outputs = (draw(st.integers(1, 3)) * geometry.groups for _ in range(2))
    return Case(draw(st.integers(0, 3)), channels, size, outputs, kernel, geometry, draw(st.integers(0, 2**32)))


@given(cases())
def test_any_geometry(case: Case) -> None:
    case.check()


@given(cases())
def test_the_definitions_agree_with_scipy(case: Case) -> None:
    for reference, expected in zip(case.reference(), oracle(case), strict=True):
        assert (reference.values == expected).all()
        assert reference.overflow is False


@given(cases(), st.integers(1, 4000))
def test_tiles_of_any_size_give_the_same(case: Case, elements: int) -> None:
    whole = case.fast()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "TILE_ELEMENTS", elements)
        for tiled, untiled in zip(case.fast(), whole, strict=True):
            assert (tiled.values == untiled.values).all()
            assert tiled.overflow is untiled.overflow


EDGES = {
    "empty batch": (0, 3, (8, 8), 4, (3, 3), ConvGeometry(padding=(1, 1))),
    "one channel, one pixel": (1, 1, (1, 1), 1, (1, 1), ConvGeometry()),
    "1x1 kernel": (3, 5, (6, 7), 4, (1, 1), ConvGeometry()),
    "1x1 kernel, stride 2": (2, 5, (7, 7), 4, (1, 1), ConvGeometry(stride=(2, 2))),
    "stride 2, ragged edges": (2, 3, (8, 11), 4, (3, 3), ConvGeometry(stride=(2, 2))),
    "stride beyond the kernel": (2, 3, (11, 10), 4, (2, 2), ConvGeometry(stride=(5, 4))),
    "padding beyond the kernel": (2, 3, (4, 5), 2, (2, 2), ConvGeometry(padding=(5, 4))),
    "padding beyond the image": (1, 2, (1, 1), 2, (3, 3), ConvGeometry(padding=(7, 7), stride=(3, 3))),
    "only padding is seen": (1, 2, (1, 1), 2, (1, 1), ConvGeometry(padding=(2, 2), stride=(5, 5))),
    "kernel as large as the image": (4, 3, (5, 6), 7, (5, 6), ConvGeometry()),
    "kernel larger than the image": (2, 3, (2, 2), 2, (5, 5), ConvGeometry(padding=(2, 2))),
    "depthwise": (3, 6, (8, 8), 6, (3, 3), ConvGeometry(padding=(1, 1), groups=6)),
    "depthwise with a multiplier": (2, 4, (8, 8), 12, (3, 3), ConvGeometry(stride=(2, 1), groups=4)),
    "oblong everything": (2, 2, (9, 14), 3, (4, 2), ConvGeometry((2, 3), (0, 2), (2, 3))),
    "no input channels": (2, 0, (4, 4), 3, (3, 3), ConvGeometry(padding=(1, 1))),
    "no output channels": (2, 3, (4, 4), 0, (3, 3), ConvGeometry(padding=(1, 1))),
    "first layer of VGG-11": (4, 3, (32, 32), 64, (3, 3), ConvGeometry(padding=(1, 1))),
    "first layer of ResNet": (1, 3, (56, 56), 8, (7, 7), ConvGeometry(stride=(2, 2), padding=(3, 3))),
    "a deep layer of VGG-11": (3, 512, (2, 2), 512, (3, 3), ConvGeometry(padding=(1, 1))),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge: str) -> None:
    Case(*EDGES[edge]).check()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_codes_in_wider_arrays(dtype: type[np.signedinteger]) -> None:
    case = Case(*EDGES["oblong everything"])
    expected = case.fast()
    case.x, case.w, case.dy = (codes.astype(dtype) for codes in (case.x, case.w, case.dy))
    for wide, narrow in zip(case.fast(), expected, strict=True):
        assert (wide.values == narrow.values).all()


@pytest.mark.parametrize("width", [16, 24, 30])
def test_wider_codes(width: int) -> None:
    """Beyond 8 bits the products go through float64 or int64; wrapping and flag stay the same."""
    case = Case(*EDGES["oblong everything"])
    case.x, case.w, case.dy = (codes.astype(np.int64) << (width - 8) for codes in (case.x, case.w, case.dy))
    case.x[0, 0, 0, 0] = case.w[0, 0, 0, 0] = case.dy[0, 0, 0, 0] = 2 ** (width - 1) - 1
    case.check()


def test_views_of_any_layout_and_read_only_arrays() -> None:
    case = Case(*EDGES["stride 2, ragged edges"])
    expected = case.fast()
    case.x, case.w, case.dy = (np.asfortranarray(codes) for codes in (case.x, case.w, case.dy))
    for codes in (case.x, case.w, case.dy):
        codes.flags.writeable = False
    for strided, contiguous in zip(case.fast(), expected, strict=True):
        assert (strided.values == contiguous.values).all()


def one_sign(shape: tuple[int, ...], code: int) -> Codes:
    return np.full(shape, code, np.int8)


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize(("left", "right"), [(127, 127), (-127, -127), (127, -127)])
@pytest.mark.parametrize("depth", [1040, 1041, 4608, 40_000, LONGEST, LONGEST + 1])
def test_sums_of_one_sign(left: int, right: int, depth: int) -> None:
    """The same number of equal products in FF (over channels), NG (over outputs) and WG (over batch and pixels)."""
    exact = left * right * depth
    forward = conv_forward(one_sign((2, depth, 1, 1), left), one_sign((3, depth, 1, 1), right))
    backward = conv_input_gradient(one_sign((2, depth, 1, 1), left), one_sign((depth, 3, 1, 1), right), (1, 1))
    update = conv_weight_gradient(one_sign((1, 2, 1, depth), left), one_sign((1, 3, 1, depth), right), (1, 1))
    for accumulated in (forward, backward, update):
        assert (accumulated.values == wrapped(exact)).all()
        assert accumulated.overflow is (depth > LONGEST)


def test_3x3_sums_of_one_sign_in_all_phases() -> None:
    """512 channels: an inner pixel sums 4,608 products, which float32 accumulators get wrong by thousands."""
    padding = ConvGeometry(padding=(1, 1))
    x, w = one_sign((2, 512, 4, 4), 127), one_sign((512, 512, 3, 3), 127)
    taps = np.full((4, 4), 9)
    taps[[0, -1]] = 6
    taps[:, [0, -1]] = 6
    taps[np.ix_([0, -1], [0, -1])] = 4
    expected = taps * 512 * 127**2
    assert (conv_forward(x, w, padding).values == expected).all()
    assert (conv_input_gradient(x, w, (4, 4), padding).values == expected).all()
    seen = np.array([[9, 12, 9], [12, 16, 12], [9, 12, 9]])
    assert (conv_weight_gradient(x, x, (3, 3), padding).values == seen * 2 * 127**2).all()


@pytest.mark.parametrize("elements", [1, 1 << 24])
def test_overflow_of_the_sum_over_taps_and_over_tiles(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single GEMM overflows, only their sum: over the taps in NG, over the tiles of the batch in WG."""
    monkeypatch.setattr(convolution, "TILE_ELEMENTS", elements)
    outputs = LONGEST // 4 + 1
    dy, w = one_sign((1, outputs, 2, 2), 127), one_sign((outputs, 1, 2, 2), 127)
    backward = conv_input_gradient(dy, w, (3, 3))
    taps = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert backward.values[0, 0].tolist() == [[wrapped(127**2 * outputs * n) for n in row] for row in taps.tolist()]
    assert backward.overflow is True
    x, error = one_sign((34, 1, 64, 64), -127), one_sign((34, 2, 64, 64), 127)
    update = conv_weight_gradient(x, error, (1, 1))
    assert update.values.ravel().tolist() == [wrapped(-(127**2) * 34 * 64 * 64)] * 2
    assert update.overflow is True
    assert conv_weight_gradient(x[:32], error[:32], (1, 1)).overflow is False


def test_sums_that_come_back_into_range_raise_no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "TILE_ELEMENTS", 1)
    x, error = one_sign((70, 1, 64, 64), 127), one_sign((70, 1, 64, 64), 127)
    x[35:] = -127
    assert conv_weight_gradient(x, error, (1, 1)) == (np.zeros((1, 1, 1, 1)), False)


def test_buffers_stay_below_64_mb() -> None:
    """A layer whose im2col of the whole batch would take 302 MB."""
    case = Case(32, 64, (64, 64), 16, (3, 3), ConvGeometry(padding=(1, 1)))
    for run, result in (
        (lambda: conv_forward(case.x, case.w, case.geometry), case.dy.size),
        (lambda: conv_input_gradient(case.dy, case.w, case.size, case.geometry), case.x.size),
        (lambda: conv_weight_gradient(case.x, case.dy, case.kernel, case.geometry), case.w.size),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= (64 << 20) + 4 * result


def test_a_single_large_image_is_cut_into_rows() -> None:
    """Buffers of 150 MB for one image: tiles of rows keep below the limit, and the edges of tiles are right."""
    case = Case(1, 32, (340, 340), 4, (3, 3), ConvGeometry(padding=(1, 1)))
    tracemalloc.start()
    fast = case.fast()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= (64 << 20) + 4 * (case.x.size + case.dy.size + case.w.size)
    window = Case(1, 32, (12, 340), 4, (3, 3), ConvGeometry(padding=(0, 1)))
    for top in (0, 100, 165, 328):
        window.x, window.w = case.x[:, :, top : top + 12], case.w
        rows = fast[0].values[:, :, top + 1 : top + 11]
        assert (conv_forward_reference(window.x, window.w, window.geometry).values == rows).all()


def test_output_size_counts_the_positions_of_the_kernel() -> None:
    for size, kernel, stride, padding, dilation in itertools.product(
        range(1, 9), range(1, 5), range(1, 4), range(4), range(1, 4)
    ):
        reach = range(0, dilation * kernel - dilation + 1)
        positions = [start for start in range(-padding, size + padding, stride) if start + reach[-1] < size + padding]
        geometry = ConvGeometry((stride, 1), (padding, 0), (dilation, 1))
        if positions:
            assert geometry.output_size(size, 5, kernel, 2) == (len(positions), 4)
        else:
            with pytest.raises(UsageError, match=f"it reaches over {reach[-1] + 1} pixels of {size + 2 * padding}"):
                geometry.output_size(size, 5, kernel, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stride": (0, 1)}, r"convolution stride is \(0, 1\): give two integers >= 1"),
        ({"stride": 2}, "convolution stride is 2: give two integers >= 1"),
        ({"padding": (-1, 0)}, r"convolution padding is \(-1, 0\): give two integers >= 0"),
        ({"padding": "same"}, "convolution padding is 'same': give two integers >= 0"),
        ({"dilation": (1, 0)}, r"convolution dilation is \(1, 0\): give two integers >= 1"),
        ({"dilation": (1.0, 1)}, r"convolution dilation is \(1.0, 1\): give two integers >= 1"),
        ({"groups": 0}, "convolution groups is 0: give an integer >= 1"),
        ({"groups": True}, "convolution groups is True: give an integer >= 1"),
    ],
)
def test_bad_geometry_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ConvGeometry(**fields)


def test_geometry_is_a_value() -> None:
    geometry = ConvGeometry((2, 2), (1, 1), (1, 1), 4)
    assert geometry == ConvGeometry(stride=(2, 2), padding=(1, 1), groups=4)
    assert len({geometry, ConvGeometry((2, 2), (1, 1), (1, 1), 4)}) == 1
    with pytest.raises((AttributeError, TypeError)):
        geometry.groups = 2  # type: ignore[misc]


def test_shapes_that_do_not_match_are_named() -> None:
    x, w, dy = (np.zeros(shape, np.int8) for shape in ((2, 4, 8, 8), (6, 4, 3, 3), (2, 6, 6, 6)))
    grouped = ConvGeometry(groups=2)
    for call, message in (
        (lambda f, n, u: f(x[:, :3], w), "take 4 channels in each of 1 groups: the input .* has 3"),
        (lambda f, n, u: f(x, w, grouped), "take 4 channels in each of 2 groups: the input .* has 4"),
        (lambda f, n, u: f(x, w[:5, :2], grouped), "5 output channels cannot be cut into 2 groups"),
        (lambda f, n, u: f(x[0], w), r"x of a convolution has shape \(4, 8, 8\): it must have 4 dimensions"),
        (lambda f, n, u: f(x, w / 2), "w of a convolution is float64: pass integer codes"),
        (lambda f, n, u: f(x[:, :, :2], w), "a 3x3 kernel .* on a 2x8 image .* 3 pixels of 2"),
        (lambda f, n, u: n(dy, w, (9, 8)), "is 6x6: the output of a .*9, 8.* is 7x6"),
        (lambda f, n, u: n(dy[:, :5], w, (8, 8)), "have 6 output channels: the error .* has 5"),
        (lambda f, n, u: n(dy, w, (2, 2)), "3 pixels of 2"),
        (lambda f, n, u: u(x, dy, (2, 3)), "is 6x6: the output of .* is 7x6"),
        (lambda f, n, u: u(x[:1], dy, (3, 3)), "is of 2 images: the input .* has 1"),
        (lambda f, n, u: u(x[:, :3], dy, (3, 3), grouped), "3 input channels cannot be cut into 2 groups"),
        (lambda f, n, u: f(x.astype(np.int64) + 2**31, w.astype(np.int64) + 2**31), "a product of 36 terms"),
    ):
        for phases in (
            (conv_forward, conv_input_gradient, conv_weight_gradient),
            (conv_forward_reference, conv_input_gradient_reference, conv_weight_gradient_reference),
        ):
            with pytest.raises(UsageError, match=message):
                call(*phases)


#: The convolutions of the talk's VGG-11 on 32x32 images: inputs, outputs, rows.
VGG11 = [(3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 256, 8), (256, 512, 4), (512, 512, 4), (512, 512, 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "outputs", "rows"), sorted(set(VGG11)))
def test_every_layer_of_vgg11(channels: int, outputs: int, rows: int) -> None:
    Case(8, channels, (rows, rows), outputs, (3, 3), ConvGeometry(padding=(1, 1))).check()
