"""The bound model against brute force on small layers, and against the talk's table on its network."""

import re
from itertools import product

import numpy as np
import pytest

from fixgrad.errors import UsageError
from fixgrad.machine import preset, talk
from fixgrad.network import Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe
from fixgrad.network.models import model
from fixgrad.numbers import permutation, stream_key
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.bounds import Bound, Phase, kernel_macs, memory_rate, random_masks, step_cost
from fixgrad.sparse import TALK_DENSITIES, Mask

COMPUTE_ROWS = ["conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2"]
KCU1500 = preset("kcu1500")
VGG11 = model("vgg11")
TALK_MASKS = random_masks(VGG11, TALK_DENSITIES, 0)


def small(stride: int = 1, padding: int = 1, dilation: int = 1, height: int = 9) -> Network:
    """conv 3->4 (3x2 kernels), pool, conv 4->6, flatten, linear."""
    geometry = ConvGeometry(stride=(stride, 1), padding=(padding, 1), dilation=(dilation, 1))
    first = Conv2d(name="a", inputs=("input",), in_channels=3, filters=4, kernel=(3, 2), geometry=geometry, relu=True)
    pool = MaxPool2d(name="p", inputs=("a",))
    second = Conv2d(name="b", inputs=("p",), in_channels=4, filters=6, kernel=(2, 2), geometry=geometry)
    flat = Flatten(name="f", inputs=("b",))
    pooled = first.geometry.output_size(height, 10, 3, 2)
    rows, columns = second.geometry.output_size(pooled[0] // 2, pooled[1] // 2, 2, 2)
    last = Linear(name="c", inputs=("f",), in_features=6 * rows * columns, out_features=5, out_bits=16)
    return Network("small", (3, height, 10), 6, (first, pool, second, flat, last))


@pytest.mark.parametrize(("stride", "padding", "dilation"), list(product((1, 2), (0, 1, 2), (1, 2))))
@pytest.mark.parametrize("phase", list(Phase))
def test_macs_of_a_kernel_by_walking_every_pixel_and_tap(stride: int, padding: int, dilation: int, phase: Phase) -> None:
    network = small(stride, padding, dilation, height=18)
    for layer in (layer for layer in network.mac_layers if isinstance(layer, Conv2d)):
        (_, rows, columns), (_, out_rows, out_columns) = network.input_shape_of(layer), network.shapes[layer.name]
        (s, t), (p, q), (d, e) = layer.geometry.stride, layer.geometry.padding, layer.geometry.dilation
        taps = list(product(range(layer.kernel[0]), range(layer.kernel[1])))
        pairs = product(range(out_rows), range(out_columns), taps)
        places = [(i * s + u * d - p, j * t + v * e - q) for i, j, (u, v) in pairs]
        valid = sum(0 <= r < rows and 0 <= c < columns for r, c in places)
        assert kernel_macs(network, layer, phase, count_padding=False) == valid
        if phase is Phase.NG:  # from the input's side: pixels and taps whose output pixel is a whole number, inside or not
            pairs = product(range(rows), range(columns), taps)
            counted = sum((r + p - u * d) % s == 0 and (c + q - v * e) % t == 0 for r, c, (u, v) in pairs)
        else:
            counted = len(places)
        assert kernel_macs(network, layer, phase, count_padding=True) == counted


def test_every_byte_of_a_small_step_by_hand() -> None:
    machine, recipe = preset("tiny"), Recipe(stored_bits=24, momentum_bits=16)
    network = small()  # a: 4x9x11 -> pooled 4x4x5; b: 6x5x6; c: 5
    masks = {"a": 0.5, "b": np.eye(6, 4, dtype=np.bool_)}
    cost = step_cost(network, masks, machine, batch=6, recipe=recipe)
    images = 8  # two micro-batches of 4 lanes
    a, pooled, b, features = 4 * 9 * 11, 4 * 4 * 5, 6 * 5 * 6, 6 * 5 * 6
    bytes_of = {(row.name, row.phase): row.dram_bytes for row in cost.layers}
    live = {"a": (6, 6, 4), "b": (4, 4, 6), "c": (5 * features, 1, 5)}  # kernels, taps, biases
    operands = {name: kernels * (taps + 2) for name, (kernels, taps, _) in live.items()}
    update = {name: kernels * (2 + taps * 11) + biases * 14 for name, (kernels, taps, biases) in live.items()}
    assert bytes_of == {
        ("a", "ff"): images * (3 * 9 * 10 + 2 * pooled) + operands["a"] + 4 * 8,
        ("b", "ff"): images * (pooled + b) + operands["b"] + 6 * 8,
        ("c", "ff"): images * (features + 2 * 5) + operands["c"] + 5 * 8,
        ("b", "ng"): images * (b + 2 * pooled + a) + operands["b"],
        ("c", "ng"): images * (5 + features) + operands["c"],
        ("a", "wg"): images * (3 * 9 * 10 + a) + update["a"],
        ("b", "wg"): images * (pooled + b) + update["b"],
        ("c", "wg"): images * (features + 5) + update["c"],
    }


def test_stochastic_updates_read_a_random_element_for_each_kernel() -> None:
    nearest, stochastic = (
        step_cost(VGG11, TALK_MASKS, KCU1500, recipe=Recipe(update_rounding=rounding)) for rounding in ("nearest", "stochastic")
    )
    assert stochastic.dram_bytes - nearest.dram_bytes == 4 * sum(int(mask.sum()) for mask in TALK_MASKS.values())


def test_time_is_the_longer_of_both_and_lanes_may_idle() -> None:
    machine = preset("tiny")
    full, part = (step_cost(small(), None, machine, batch=batch) for batch in (4, 3))
    for row, other in zip(full.layers, part.layers, strict=True):
        assert row.us == other.us == max(row.compute_us, row.memory_us)
        assert (row.bound is Bound.COMPUTE) == (row.compute_us >= row.memory_us)
        assert row.compute_us == row.macs / 4 / (machine.pes * machine.clock_mhz)
        assert row.memory_us == row.dram_bytes / memory_rate(machine)
        assert other.macs * 4 == row.macs * 3
        assert other.utilisation == pytest.approx(row.utilisation * 3 / 4)
    assert {row.bound for row in full.layers} == {Bound.COMPUTE, Bound.MEMORY}


def test_memory_moves_at_the_lesser_of_port_and_dram() -> None:
    assert memory_rate(KCU1500) == 2 * 64 * 250  # bytes a us: the ports, below 2 * 19.2 GB/s * .95
    wide = KCU1500.with_changes(clock_mhz=400.0)
    assert 2 * 19_200 * 0.94 < memory_rate(wide) < 2 * 19_200 * 0.955


@pytest.mark.parametrize("phase", [Phase.FF, Phase.NG])
@pytest.mark.parametrize("name", COMPUTE_ROWS)
def test_rows_that_the_talk_finds_compute_bound_are_within_5_percent(name: str, phase: Phase) -> None:
    row = step_cost(VGG11, TALK_MASKS, KCU1500, count_padding=True).row(name, phase)
    figure = talk.figures()[name, phase]
    assert row.bound == figure.bound == "compute"
    assert 0.95 * figure.us < row.us < figure.us  # the talk is above the bound, never below
    assert row.gops == pytest.approx(figure.gops, rel=0.055)
    assert row.utilisation == pytest.approx(1)


def test_totals_of_the_talks_network() -> None:
    """26.61 and 21.32 ms are the MAC bounds alone; the small layers that wait for memory add 0.1 % and 0.6 %."""
    padded, valid = (step_cost(VGG11, TALK_MASKS, KCU1500, count_padding=padding) for padding in (True, False))
    assert padded.peak_gops == 512
    assert padded.pass_gop == pytest.approx(9.811, rel=1e-3)
    assert sum(row.compute_us for row in padded.layers) == pytest.approx(26_610, rel=1e-3)
    assert sum(row.compute_us for row in valid.layers) == pytest.approx(21_320, rel=1e-3)
    assert padded.total_us == pytest.approx(26_610, rel=2e-3)
    assert padded.total_gops == pytest.approx(1_106, rel=2e-3)
    assert valid.total_us == pytest.approx(21_320, rel=7e-3)
    assert valid.total_gops == pytest.approx(1_380, rel=7e-3)


def test_least_traffic_of_the_talks_step_is_about_54_megabytes() -> None:
    cost = step_cost(VGG11, TALK_MASKS, KCU1500, recipe=Recipe(momentum_bits=16))
    assert cost.dram_bytes == pytest.approx(54e6, rel=0.05)


def test_densities_and_masks_of_those_densities_cost_the_same() -> None:
    by_mask = step_cost(VGG11, {name: Mask(mask) for name, mask in TALK_MASKS.items()}, KCU1500)
    assert by_mask == step_cost(VGG11, TALK_DENSITIES, KCU1500) == step_cost(VGG11, TALK_MASKS, KCU1500)
    assert step_cost(VGG11, None, KCU1500) == step_cost(VGG11, dict.fromkeys(TALK_MASKS, 1.0), KCU1500)


def test_random_masks_have_exact_counts_and_follow_the_seed() -> None:
    again, other = random_masks(VGG11, TALK_DENSITIES, 0), random_masks(VGG11, TALK_DENSITIES, 1)
    for layer in VGG11.mac_layers:
        mask = TALK_MASKS[layer.name]
        assert mask.shape == layer.weight_shape[:2]
        assert np.count_nonzero(mask) == round(TALK_DENSITIES[layer.name] * mask.size)
        assert np.array_equal(mask, again[layer.name])
        assert not np.array_equal(mask, other[layer.name])
    rows = TALK_MASKS["conv4_2"].sum(axis=1)  # hypergeometric: 512 * .3 = 154 a row, deviation 10.4
    assert 100 < rows.min() < 154 < rows.max() < 210
    assert rows.std() == pytest.approx(10.37, rel=0.15)


def test_totals_are_the_sums_of_rows_and_json_says_so() -> None:
    cost = step_cost(VGG11, TALK_MASKS, KCU1500)
    fields = cost.to_dict()
    assert [row["phase"] for row in fields["layers"]].count("ng") == 10  # the first layer has no NG
    for phase in ("ff", "ng", "wg"):
        rows = [row for row in fields["layers"] if row["phase"] == phase]
        assert fields["phases"][phase]["us"] == sum(row["us"] for row in rows)
        assert fields["phases"][phase]["gops"] == pytest.approx(9.811e6 / sum(row["us"] for row in rows), rel=1e-3)
    assert fields["total"]["us"] == sum(row["us"] for row in fields["layers"])
    assert fields["total"]["gops"] == pytest.approx(3 * 9.811e6 / fields["total"]["us"], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch is 0: choose at least 1"),
        ({"masks": {"conv9": 0.5}}, "a mask is for 'conv9', which is no layer with weights of vgg11: they are conv1, "),
        ({"masks": {"conv1": np.ones((3, 64), np.bool_)}}, "layer conv1: its mask is bool [3, 64]: it must be bool [64, 3]"),
        ({"masks": {"conv1": np.ones((64, 3))}}, "layer conv1: its mask is float64 [64, 3]: it must be bool [64, 3]"),
        ({"masks": {"conv1": 1.5}}, "layer conv1: density 1.5 is not a number with 0 < density <= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"network": VGG11, "masks": None, "machine": KCU1500, **change}
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        step_cost(**arguments)  # type: ignore[arg-type]


def test_a_layer_without_a_density_or_a_row_is_named() -> None:
    with pytest.raises(UsageError, match=r"layer conv2 has no density: it has conv1"):
        random_masks(VGG11, {"conv1": 0.5})
    with pytest.raises(UsageError, match=r"vgg11 has no ng of 'conv1': layers are conv1, conv2"):
        step_cost(VGG11, None, KCU1500).row("conv1", "ng")


def test_random_masks_keep_the_lowest_hashes_of_their_stream() -> None:
    layer = VGG11.layer("conv2")
    assert isinstance(layer, Conv2d)
    size = layer.filters * layer.in_channels
    order = permutation(size, stream_key(7, 0, "mask/conv2"))
    mask = random_masks(VGG11, dict.fromkeys(TALK_MASKS, 0.3), seed=7)["conv2"]
    assert set(np.flatnonzero(mask)) == set(order[: round(0.3 * size)])
