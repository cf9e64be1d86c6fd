"""Workers as processes of one group: sums, maxima, flags, and what happens when one is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixgrad.errors import UsageError
from fixgrad.train.collective import SINGLE, Collective, from_environment
from fixgrad.train.launch import RENDEZVOUS

WORK = """
import os, sys, torch
from fixgrad.train.collective import FollowedError, WorkerError, from_environment
c = from_environment()
words = torch.tensor([2**31 - 1, c.rank], dtype=torch.int32)
c.sum_(words)
assert words.tolist() == [(3 * (2**31 - 1) + 2**31) % 2**32 - 2**31, 3]
wide = torch.full((2, 3), 2**40 + c.rank).t()
assert c.sum_(wide) is wide and (wide == 3 * 2**40 + 3).all()
assert c.max_(torch.tensor([c.rank, -c.rank])).tolist() == [2, 0]
assert c.or_(torch.tensor([c.rank == 1, False])).tolist() == [True, False]
assert c.gather(str(c.rank)) == ["0", "1", "2"]
assert c.broadcast({"rank": c.rank}) == {"rank": 0}
assert c.share(7)[:2] == [(0, 2), (2, 2), (4, 3)][c.rank]
c.barrier()
try:
    c.sum_(torch.ones(1))
except TypeError as error:
    assert "exact for integers only, not for torch.float32" in str(error)
else:
    raise AssertionError
try:
    with c.together():
        if c.rank == 1:
            raise ValueError("bad")
except FollowedError:
    assert c.rank != 1
except ValueError as error:
    assert c.rank == 1 and str(error) == "bad"
if c.rank == 2:
    os._exit(0)
try:
    c.barrier()
except WorkerError as error:
    assert str(error).startswith("lost another worker of this run"), error
    assert "\\n" not in str(error)
else:
    raise AssertionError("nobody is missed")
print("well", c.rank)
os._exit(0)
"""


@pytest.mark.slow
def test_three_processes(tmp_path: Path) -> None:
    processes = []
    for rank in range(3):
        given = {"RANK": str(rank), "WORLD_SIZE": "3", RENDEZVOUS: str(tmp_path / "meet"), "GLOO_SOCKET_IFNAME": "lo"}
        environment = {**os.environ, **given, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORK]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=200) for process in processes]
    assert [out for out, _ in told] == ["well 0\n", "well 1\n", ""], told


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [5, 7, 128])
def test_shares_cover_the_batch(size: int, batch: int) -> None:
    places = []
    for rank in range(size):
        worker = Collective()
        worker.rank, worker.size = rank, size
        share = worker.share(batch)
        assert share.batch == batch
        assert share.length in (batch // size, batch // size + 1)
        places += range(batch)[share.images]
    assert places == list(range(batch))


def test_an_ordinary_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert from_environment() is SINGLE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert from_environment() is SINGLE
    assert SINGLE.gather("x") == ["x"]
    assert SINGLE.broadcast("x") == "x"


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", RENDEZVOUS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT is not set: start the workers"):
        from_environment()
