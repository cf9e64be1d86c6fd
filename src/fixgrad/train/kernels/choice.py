"""Which kernels a device takes. Every choice gives the same bits."""

import logging
from functools import lru_cache
from typing import NamedTuple

import torch

from fixgrad.train.kernels.gemm import GemmPath, choose_path
from fixgrad.train.kernels.joining import Joining
from fixgrad.train.kernels.joining_torch import TorchJoining
from fixgrad.train.kernels.joining_trial import joining_agrees
from fixgrad.train.kernels.pointwise import Pointwise
from fixgrad.train.kernels.pointwise_torch import TorchPointwise
from fixgrad.train.kernels.trial import adam_agrees, agree
from fixgrad.train.kernels.workers import Workers, workers

_log = logging.getLogger(__name__)


class Kernels(NamedTuple):
    """The kernels in force: the path of integer products, the pointwise functions, and the threads that run them."""

    path: GemmPath
    pointwise: Pointwise
    workers: Workers
    joining: Joining = TorchJoining()


def choose_kernels(
    device: torch.device, path: str = "auto", fused: bool = True, joins: bool = True, adapts: bool = False
) -> Kernels:
    """Kernels for a device, with as many threads on the CPU as `torch.get_num_threads` says.

    Args:
        path: ``"auto"``, or the path of integer products to force (see `choose_path`, also for what is raised).
        fused: whether pointwise functions may be compiled.
        joins: whether anything but a chain is computed: a chain need not wait for functions that it has no use for.
        adapts: whether weights are updated by Adam; likewise.
    """
    on_cpu = device.type == "cpu"
    pointwise = _fused_pointwise() if on_cpu and fused else None
    if pointwise and adapts and not _fused_adam_works():
        pointwise = None
    team = workers(torch.get_num_threads() if on_cpu else 1)
    joining = _fused_joining() if pointwise and joins else None
    return Kernels(choose_path(path, device), pointwise or TorchPointwise(), team, joining or TorchJoining())


@lru_cache
def _fused_pointwise() -> Pointwise | None:
    """The compiled functions, or None where Numba does not work: training is slower then, and the same."""
    try:
        from fixgrad.train.kernels.pointwise_numba import NumbaPointwise

        if agree(NumbaPointwise(), TorchPointwise()):
            return NumbaPointwise()
        problem = "compiled functions give other integers than eager ones"
    except Exception as error:  # whatever a broken installation raises
        problem = str(error)
    _warn(problem)
    return None


@lru_cache
def _fused_adam_works() -> bool:
    """The same of the update by Adam."""
    try:
        from fixgrad.train.kernels.pointwise_numba import NumbaPointwise

        if adam_agrees(NumbaPointwise(), TorchPointwise()):
            return True
        problem = "compiled functions give other integers than eager ones"
    except Exception as error:  # whatever a broken installation raises
        problem = str(error)
    _warn(problem)
    return False


@lru_cache
def _fused_joining() -> Joining | None:
    """The same of what joins and normalises tensors."""
    try:
        from fixgrad.train.kernels.joining_numba import NumbaJoining

        if joining_agrees(NumbaJoining(), TorchJoining()):
            return NumbaJoining()
        problem = "compiled functions give other integers than eager ones"
    except Exception as error:  # whatever a broken installation raises
        problem = str(error)
    _warn(problem)
    return None


def _warn(problem: str) -> None:
    _log.warning("Numba does not work here (%s): pointwise functions run in eager PyTorch, several times slower", problem)
