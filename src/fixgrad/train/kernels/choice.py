"""Which kernels a device takes. Every choice gives the same bits."""

from typing import NamedTuple

import torch

from fixgrad.train.kernels.gemm import GemmPath, choose_path
from fixgrad.train.kernels.pointwise import Pointwise
from fixgrad.train.kernels.pointwise_torch import TorchPointwise


class Kernels(NamedTuple):
    """The kernels in force: the path of integer products, and the pointwise functions."""

    path: GemmPath
    pointwise: Pointwise


def choose_kernels(device: torch.device, path: str = "auto") -> Kernels:
    """Kernels for a device.

    Args:
        path: ``"auto"``, or the path of integer products to force (see `choose_path`, also for what is raised).
    """
    return Kernels(choose_path(path, device), TorchPointwise())
