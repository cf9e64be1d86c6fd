"""The float baseline: ordinary momentum SGD on the same network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fixgrad.errors import DataError, FixgradError
from fixgrad.network import Recipe, Schedule
from fixgrad.network.models import model
from fixgrad.train.float_baseline import FloatTrainer, float_module
from fixgrad.train.initialise import initial_weights, standard_normal
from fixgrad.train.trainer import FixedPointTrainer

NETWORK = model("digits")
RECIPE = Recipe(learning_rate=0.05, momentum=0.9, weight_decay=1e-3, schedule=Schedule.CONSTANT)
Codes = NDArray[np.int8]


def batch(seed: int, images: int = 8) -> tuple[Codes, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return random.integers(-127, 128, (images, 1, 8, 8)).astype(np.int8), random.integers(0, 10, images)


def trainer(recipe: Recipe = RECIPE) -> FloatTrainer:
    return FloatTrainer(NETWORK, initial_weights(NETWORK, 0), recipe, total_steps=10)


def test_at_a_constant_rate_it_is_the_sgd_of_torch() -> None:
    ours, module = trainer(), float_module(NETWORK)
    module.load_state_dict({name: torch.from_numpy(value).float() for name, value in initial_weights(NETWORK, 0).items()})
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for seed in range(5):
        x, labels = batch(seed)
        logits = module(torch.from_numpy(x.astype(np.float32) / 64))
        loss = F.cross_entropy(logits, torch.from_numpy(labels))
        report = ours.step(x, labels)
        assert report.loss == pytest.approx(loss.item(), rel=1e-5)
        assert report.correct == int((logits.argmax(1) == torch.from_numpy(labels)).sum())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in ours.weights().items():
        assert np.allclose(value, dict(module.named_parameters())[name].detach(), atol=1e-6)


def test_the_rate_follows_the_schedule() -> None:
    """With no momentum and no decay, the first step of a warm-up of ten moves the weights a tenth as far."""
    plain = Recipe(learning_rate=0.05, momentum=0.0, weight_decay=0.0, schedule=Schedule.CONSTANT)
    warming = Recipe(learning_rate=0.05, momentum=0.0, weight_decay=0.0, schedule=Schedule.CONSTANT, warmup_steps=10)
    before = initial_weights(NETWORK, 0)["conv2.weight"].astype(np.float32)
    moved = []
    for recipe in (plain, warming):
        ours = trainer(recipe)
        ours.step(*batch(0))
        moved.append(ours.weights()["conv2.weight"] - before)
    assert np.allclose(moved[0], 10 * moved[1], atol=1e-6)
    assert np.abs(moved[0]).max() > 1e-4


def test_bfloat16_products_are_those_of_autocast_and_all_that_is_kept_is_float32() -> None:
    weights = initial_weights(NETWORK, 0)
    ours = FloatTrainer(NETWORK, weights, RECIPE, total_steps=10, bfloat16=True)
    module = float_module(NETWORK)
    module.load_state_dict({name: torch.from_numpy(value).float() for name, value in weights.items()})
    x, labels = batch(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = module(torch.from_numpy(x.astype(np.float32) / 64).contiguous(memory_format=torch.channels_last))
    in_float32, expected = trainer().step(x, labels).loss, F.cross_entropy(logits.float(), torch.from_numpy(labels)).item()
    assert ours.step(x, labels).loss == expected != in_float32
    assert {array.dtype for array in ours.snapshot().arrays.values()} == {np.dtype(np.float32)}


def test_a_resumed_run_goes_on_with_bfloat16_products() -> None:
    whole = FloatTrainer(NETWORK, initial_weights(NETWORK, 0), RECIPE, total_steps=10, bfloat16=True)
    whole.step(*batch(0))
    again = FloatTrainer.from_snapshot(NETWORK, whole.snapshot(), RECIPE, 10, bfloat16=True)
    assert whole.step(*batch(1)) == again.step(*batch(1))
    assert np.array_equal(whole.predict(batch(2)[0]), again.predict(batch(2)[0]))


def test_what_is_pruned_stays_zero() -> None:
    ours = trainer()
    ours.step(*batch(0))
    mask = np.random.default_rng(0).random((32, 32)) < 0.5
    ours.prune({"conv2.weight": mask})
    ours.prune({"conv2.weight": np.ones((32, 32), np.bool_)})
    ours.step(*batch(1))
    saved = ours.snapshot().arrays
    assert np.array_equal(ours.masks()["conv2.weight"], mask)
    for kind in ("weight", "momentum"):
        assert not saved[f"{kind}/conv2.weight"][~mask].any()
        assert saved[f"{kind}/conv2.weight"][mask].any(axis=(1, 2)).all()


def test_a_snapshot_goes_on_as_if_nothing_had_been() -> None:
    ours = trainer()
    ours.step(*batch(0))
    ours.prune({"dense4.weight": np.random.default_rng(0).random((64, 256)) < 0.3})
    saved = ours.snapshot()
    copied = saved._replace(arrays={name: array.copy() for name, array in saved.arrays.items()})
    again = FloatTrainer.from_snapshot(NETWORK, copied, RECIPE, 10)
    for seed in (1, 2):
        assert again.step(*batch(seed)) == ours.step(*batch(seed))
    for name, array in ours.snapshot().arrays.items():
        assert np.array_equal(again.snapshot().arrays[name], array)
    assert again.snapshot().values == {"step": 3}


def test_a_snapshot_that_lacks_a_weight_or_has_another_shape_is_refused() -> None:
    saved = trainer().snapshot()
    lacking = {name: array for name, array in saved.arrays.items() if name != "weight/conv1.bias"}
    with pytest.raises(DataError, match=r"no value for conv1\.bias"):
        FloatTrainer.from_snapshot(NETWORK, saved._replace(arrays=lacking), RECIPE, 10)
    with pytest.raises(DataError, match=r"conv1\.bias has shape \[3\]: expected \[32\]"):
        FloatTrainer.from_snapshot(
            NETWORK, saved._replace(arrays={**saved.arrays, "weight/conv1.bias": np.zeros(3, np.float32)}), RECIPE, 10
        )


def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_do() -> None:
    ours = trainer(Recipe(learning_rate=1e3, schedule=Schedule.CONSTANT))

    def until_it_fails() -> None:
        for seed in range(20):
            ours.step(*batch(seed))

    with pytest.raises(FixgradError, match=r"training diverged: the loss of step \d+ is nan; lower --lr or raise --warmup"):
        until_it_fails()


def test_it_reads_the_codes_as_the_values_that_they_stand_for() -> None:
    x, _ = batch(0)
    module = float_module(NETWORK)
    module.load_state_dict({name: torch.from_numpy(value).float() for name, value in initial_weights(NETWORK, 0).items()})
    expected = module(torch.from_numpy(np.ldexp(x.astype(np.float32), -6))).detach().numpy()
    assert np.allclose(trainer().predict(x), expected, atol=1e-5)


def test_initial_weights_are_kaimings_and_the_same_everywhere() -> None:
    weights = initial_weights(model("vgg11"), seed=1)
    for name, value in weights.items():
        if name.endswith(".bias"):
            assert not value.any()
        elif value.size > 10_000:
            assert value.std() == pytest.approx(np.sqrt(2 / np.prod(value.shape[1:])), rel=0.01)
            assert abs(value.mean()) < 5 * value.std() / np.sqrt(value.size)
    # Any other bits would make runs of the same seed differ between machines or versions.
    assert (weights["conv2.weight"][0, 0] * np.sqrt(64 * 9 / 2) * 2**17).round().astype(int).tolist() == PINNED
    assert not np.array_equal(weights["dense7.weight"], initial_weights(model("vgg11"), seed=2)["dense7.weight"])


PINNED = [[-129434, -247924, 112470], [122978, -155606, -166792], [127206, -62930, -167182]]


def test_normal_numbers_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fixgrad.numbers import stream_key

    key = stream_key(7, 0, "init/x")
    whole = standard_normal((5, 7, 3), key)
    monkeypatch.setattr("fixgrad.train.initialise._CHUNK", 16)
    assert np.array_equal(standard_normal((5, 7, 3), key), whole)
    many = standard_normal((200_000,), key)
    assert abs(many.mean()) < 0.01
    assert many.var() == pytest.approx(1, rel=0.01)
    assert (np.abs(many) > 2).mean() == pytest.approx(0.0455, rel=0.05)


def test_fixed_point_and_float_answer_the_same_verbs() -> None:
    verbs = {name for name in vars(FixedPointTrainer) if not name.startswith("_")}
    assert verbs <= set(dir(FloatTrainer))
