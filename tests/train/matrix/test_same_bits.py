"""The same run on everything that may compute it: checkpoints are compared byte for byte.

What is varied changes nothing: reference or PyTorch, each path of integer products, compiled or eager pointwise functions,
threads, device, workers (here threads that meet at a barrier; `test_processes.py` has real ones), and any mixture.
`torch.compile` is not among them: compiled functions are Numba's, which needs no C++ compiler at run time.
"""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fixgrad.errors import DataError, UsageError
from fixgrad.train import request as module
from fixgrad.train.collective import SINGLE, Collective, FollowedError
from fixgrad.train.execution import HERE, Execution, usable_device
from fixgrad.train.kernels import gemm
from fixgrad.train.plan import Arithmetic
from fixgrad.train.run import TrainingRun

#: The others take the same code with other constants: they are for `make test-slow`.
SLOW = ("regrown", "stochastic", "nearest", "adam", "adamw")
NAMES = ["chain", "residual", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
WAYS = {
    "int8": Execution(path="int8"),
    "fp32": Execution(path="fp32"),
    "fp64": Execution(path="fp64"),
    "eager": Execution(fused=False),
    "eager fp32": Execution(path="fp32", fused=False),
    "cuda": Execution(device="cuda"),
}
MARKS = {
    "cuda": pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    "fp64": pytest.mark.slow,
    "eager": pytest.mark.slow,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_reference(name: str, requests: Any, expected: Any, trained: Any, on_the_reference: None) -> None:
    assert trained(requests[name]) == expected[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", [pytest.param(way, marks=MARKS.get(way, ())) for way in WAYS])
def test_every_path(name: str, way: str, requests: Any, expected: Any, trained: Any) -> None:
    assert list(expected[name]) == [f"epoch-000{epoch}.safetensors" for epoch in range(3)]
    assert trained(requests[name], WAYS[way]) == expected[name]


def test_adam_on_the_reference(requests: Any, expected: Any, trained: Any, on_the_reference: None) -> None:
    assert trained(requests["adam"]) == expected["adam"]


def test_adam_by_eager_functions(requests: Any, expected: Any, trained: Any) -> None:
    assert trained(requests["adam"], WAYS["eager fp32"]) == expected["adam"]


def test_adam_by_three_workers(requests: Any, expected: Any, trained: Any, team: Any) -> None:
    found = team(3, lambda collective: trained(requests["adam"], Execution(collective=collective)))
    assert found[0] == expected["adam"]


def test_a_processor_whose_int8_instructions_saturate(
    requests: Any, expected: Any, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It adds pairs of products in 16 bits: the test at start-up finds it out, and the run takes float32 products."""

    def saturating(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        a, b = a.long(), b.long()
        if a.shape[1] % 2:
            a, b = torch.nn.functional.pad(a, (0, 1)), torch.nn.functional.pad(b, (0, 0, 0, 1))
        pairs = torch.einsum("mkp,kpn->mkn", a.unflatten(1, (-1, 2)) + 128, b.unflatten(0, (-1, 2)))
        return out.copy_(pairs.clamp(-(1 << 15), (1 << 15) - 1).sum(dim=1) - 128 * b.sum(dim=0))

    monkeypatch.setattr(torch, "_int_mm", saturating)
    gemm.is_exact.cache_clear()
    try:
        assert gemm.choose_path("auto", torch.device("cpu")) is gemm.GemmPath.FP32
        assert trained(requests["chain"]) == expected["chain"]
    finally:
        gemm.is_exact.cache_clear()


@pytest.mark.parametrize("threads", [2, 4])
def test_any_number_of_threads(threads: int, requests: Any, expected: Any, trained: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert trained(requests["stochastic"]) == expected["stochastic"]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_workers(
    name: str, workers: int, requests: Any, expected: Any, trained: Any, team: Any, tmp_path: Path
) -> None:
    found = team(workers, lambda collective: trained(requests[name], Execution(collective=collective)))
    assert found[0] == expected[name]


def test_workers_exchange_the_same_kernels(requests: Any, expected: Any, trained: Any, team: Any) -> None:
    found = team(2, lambda collective: trained(requests["regrown"], Execution(collective=collective)))
    assert found[0] == expected["regrown"]


def test_workers_that_compute_differently(requests: Any, expected: Any, trained: Any, team: Any) -> None:
    """A run may be spread over machines with different processors."""
    ways = [Execution(path="int8"), Execution(path="fp32", fused=False), Execution(path="fp64")]

    def work(collective: Collective) -> Any:
        return trained(requests["chain"], replace(ways[collective.rank], collective=collective))

    assert team(3, work)[0] == expected["chain"]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), pytest.param(2, 4, marks=pytest.mark.slow)])
def test_resumed_by_another_number_of_workers(
    before: int, after: int, requests: Any, expected: Any, team: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def begin(collective: Collective) -> None:
        run = TrainingRun.begin(requests["chain"], out, execution=Execution(collective=collective))
        next(iter(run.train()))
        run.close()

    def resume(collective: Collective) -> None:
        run = TrainingRun.resume(out, execution=Execution(collective=collective))
        assert len(run.history) == 1
        for _ in run.train():
            pass
        run.close()

    team(before, begin)
    team(after, resume)
    found = {path.name: path.read_bytes() for path in sorted((out / "checkpoints").glob("*.safetensors"))}
    assert found == expected["chain"]


def test_a_batch_for_fewer_images_than_workers(requests: Any, tmp_path: Path, team: Any) -> None:
    request = replace(requests["chain"], batch=2)
    with pytest.raises(UsageError, match="a batch has 2 images, but the run 3 workers: start at most one for each image"):
        team(3, lambda collective: TrainingRun.begin(request, tmp_path / "run", execution=Execution(collective=collective)))


def outcomes(team: Any, size: int, work: Any) -> list[BaseException | None]:
    def caught(collective: Collective) -> BaseException | None:
        try:
            work(collective)
        except Exception as error:
            return error
        return None

    return list(team(size, caught))


def test_one_worker_tells_what_all_met(requests: Any, tmp_path: Path, team: Any) -> None:
    request = replace(requests["chain"], density="7")
    found = outcomes(team, 3, lambda member: TrainingRun.begin(request, tmp_path / "x", execution=Execution(collective=member)))
    assert isinstance(found[0], UsageError)
    assert [type(error) for error in found[1:]] == [FollowedError, FollowedError]


def test_a_folder_that_exists_ends_all_workers(requests: Any, tmp_path: Path, team: Any) -> None:
    (tmp_path / "file").write_text("")
    found = outcomes(
        team, 2, lambda member: TrainingRun.begin(requests["chain"], tmp_path / "file", execution=Execution(collective=member))
    )
    assert "already exists" in str(found[0])
    assert isinstance(found[1], FollowedError)


def test_a_worker_with_other_data_is_found_out(
    requests: Any, tmp_path: Path, team: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks: dict[int, int] = {}
    fingerprint = module.data_fingerprint

    def of_this_worker(data: Any) -> str:
        return fingerprint(data) if ranks[threading.get_ident()] == 0 else "0" * 32

    def work(collective: Collective) -> None:
        ranks[threading.get_ident()] = collective.rank
        TrainingRun.begin(requests["chain"], tmp_path / "run", execution=Execution(collective=collective))

    monkeypatch.setattr(module, "data_fingerprint", of_this_worker)
    found = outcomes(team, 2, work)
    assert isinstance(found[0], FollowedError)
    assert str(found[1]) == "what worker 1 sees is not of this run: its fingerprint differs from the one in config.json"
    assert not (tmp_path / "run").exists()


def test_the_float_baseline_has_one_worker(requests: Any, tmp_path: Path, team: Any) -> None:
    request = replace(requests["nearest"], arithmetic=Arithmetic.FLOAT)
    with pytest.raises(UsageError, match="the float baseline is computed by one worker on the CPU"):
        team(2, lambda collective: TrainingRun.begin(request, tmp_path / "run", execution=Execution(collective=collective)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is here")
def test_a_gpu_that_is_not_there(requests: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"device cuda: PyTorch .* finds no GPU here: leave --device out"):
        TrainingRun.begin(requests["chain"], tmp_path / "run", execution=Execution(device="cuda"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu:0", ""])
def test_a_device_that_makes_no_sense(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}' is unknown: choose cpu, cuda, or cuda:N"):
        usable_device(name)


def test_the_gpu_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert usable_device("cuda") == "cuda:1"
    assert usable_device("cuda:0") == "cuda:0"
    with pytest.raises(UsageError, match="device cuda:2 is not there: this machine has 2"):
        usable_device("cuda:2")


def test_one_process_is_the_default() -> None:
    assert HERE.collective is SINGLE
    assert SINGLE.share(7) == (0, 7, 7)
    with SINGLE.together():
        pass
    with pytest.raises(DataError, match="bad"), SINGLE.together():
        raise DataError("bad")
