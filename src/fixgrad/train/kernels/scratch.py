"""Buffers that a thread uses again for each tile, so that they are still in its core's cache."""

import threading
from math import prod

import torch
from torch import Tensor

#: Views that are kept of one buffer: more than the shapes of a network's tiles.
_MOST_VIEWS = 512


class _Scratch(threading.local):
    """The calling thread's buffers, one for each role; each grows to the largest size that was asked for."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}
        self.views: dict[str, dict[tuple[tuple[int, ...], torch.dtype], Tensor]] = {}


_scratch = _Scratch()


def scratch(role: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor that is valid until this thread asks for the same role again.

    Args:
        role: what it holds: two tensors that live at once have different roles.
        like: a tensor on the same device; its type counts unless `dtype` is given.
    """
    dtype = dtype or like.dtype
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    views = _scratch.views.setdefault(role, {})
    view = views.get((shape, dtype))
    if view is None:
        view = views[shape, dtype] = _view(role, views, shape, dtype)
    return view


def _view(role: str, views: dict[tuple[tuple[int, ...], torch.dtype], Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor on the role's buffer. Views are kept, because making one takes as long as a small product."""
    size = prod(shape) * dtype.itemsize
    buffer = _scratch.buffers.get(role)
    if buffer is None or buffer.numel() < size:
        buffer = _scratch.buffers[role] = torch.empty(size, dtype=torch.uint8)
        views.clear()  # they would hold the buffer that was too small
    elif len(views) >= _MOST_VIEWS:
        views.clear()
    return buffer[:size].view(dtype).view(shape)
