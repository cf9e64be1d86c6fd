"""How many CPU threads training uses."""

import torch


def use_threads(count: int) -> None:
    """Train on `count` threads from now on: PyTorch's own, and those of the integer kernels of executors made later.

    Fixed point gives the same bits with any number of them; float may differ in the last.
    """
    torch.set_num_threads(count)
