"""The steps that a benchmark compares: each trains, and is what its name says."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fixgrad.errors import FixgradError
from fixgrad.network.models import digits
from fixgrad.train.bench import measure
from fixgrad.train.bench.contestants import Contest, Contestant, _rectify_in_place
from fixgrad.train.bench.fake_quantised import fake_quantise, quantise
from fixgrad.train.float_baseline import float_module

CONTEST = Contest(digits(), 4, "0.5")


def test_on_a_cpu_four_take_part() -> None:
    assert [str(contestant) for contestant in CONTEST.contestants] == ["fp32", "fake_quantised", "fixgrad", "fixgrad_sparse"]
    assert Contestant.FIXGRAD_SPARSE not in replace(CONTEST, density=None).contestants


def test_a_gpu_brings_bfloat16() -> None:
    assert Contestant.BF16 in replace(CONTEST, device="cuda:0").contestants


@pytest.mark.parametrize("contestant", CONTEST.contestants)
def test_every_step_can_be_repeated(contestant: Contestant) -> None:
    step = CONTEST.step(contestant)
    assert step() is not None
    assert step() is not None


def test_quantised_values_are_codes_at_a_power_of_two() -> None:
    x = torch.tensor([-3.0, 0.013, 1.0, 2.99])
    assert (quantise(x, 8) * 32).tolist() == [-96, 0, 32, 96]
    assert quantise(torch.zeros(3), 8).tolist() == [0, 0, 0]


def test_stochastic_rounding_is_right_on_average() -> None:
    x = torch.full((20_000,), 0.3)
    x[0] = 100.0
    rounded = quantise(x, 8, stochastic=True)[1:]
    assert sorted(set(rounded.tolist())) == [0.0, 1.0]
    assert abs(float(rounded.mean()) - 0.3) < 0.02


def test_layers_of_the_emulation_see_eight_bits() -> None:
    module = fake_quantise(float_module(digits()))
    seen = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0], layer.weight)))
    module(torch.randn(2, 1, 8, 8)).sum().backward()
    assert len(seen) == 5
    for x, weight in [(None, seen[0][1]), *seen[1:]]:
        for tensor in (x, weight):
            assert tensor is None or len(tensor.unique()) <= 255


class Twice(nn.Module):
    """Reads the input of a rectifier again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 2, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.relu(y) + y


def test_rectifiers_are_in_place_only_where_nothing_else_reads() -> None:
    plain, twice = float_module(digits()), Twice()
    _rectify_in_place(plain, torch.randn(2, 1, 8, 8))
    _rectify_in_place(twice, torch.randn(2, 1, 8, 8))
    assert all(layer.inplace for layer in plain.modules() if isinstance(layer, nn.ReLU))
    assert not twice.relu.inplace


def test_ratios_are_taken_round_by_round() -> None:
    times, cpu_times = ({Contestant.FIXGRAD: ours, Contestant.FP32: [2.0, 5.0]} for ours in ([1.0, 4.0], [1.0, 5.0]))
    measured = measure.Measured(times, cpu_times, {})
    assert measured.ratio(Contestant.FIXGRAD, Contestant.FP32) == (0.65, 0.5, 0.8)
    assert measured.cpu_ratio(Contestant.FIXGRAD, Contestant.FP32) == (0.75, 0.5, 1.0)
    assert measured.ratio(Contestant.FIXGRAD_SPARSE, Contestant.FP32) is None
    assert measured.memory_ratio(Contestant.FIXGRAD, Contestant.FP32) is None


def test_all_work_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peak_in_a_process", lambda contest, contestant: 1.0)
    told: list[int] = []
    found = measure.measure(CONTEST, 2, lambda what, done: told.append(done))
    assert told == sorted(told)
    assert told[-1] == measure.units_of_work(CONTEST, 2)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.seconds.values())
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.cpu_seconds.values())
    assert list(found.seconds) == list(found.cpu_seconds) == CONTEST.contestants
    assert list(found.peak_bytes) == ["fp32", "fake_quantised", "fixgrad"]


def test_a_process_that_fails_is_reported() -> None:
    with pytest.raises(FixgradError, match=r"memory of fp32 ended with 1: RuntimeError: .* negative dimension -1"):
        measure.peak_in_a_process(replace(CONTEST, batch=-1), Contestant.FP32)
