"""How a batch, or the outputs of a layer, are cut into parts that threads compute alone."""

import itertools
from functools import lru_cache

import torch

#: Bytes of the buffers of one tile, which stay in a cache from im2col to the requantised codes. Measured: with half as many,
#: networks of few channels spend more time between tiles than they gain; with twice as many, the cache gets too small.
TILE_BYTES = 4 << 20
#: A GPU is kept busy by large tiles: this many bytes bound its memory, not its cache.
GPU_TILE_BYTES = 256 << 20
#: Work below this many bytes takes less time than waking another thread.
_SMALL_BYTES = 1 << 18


def split(extent: int, parts: int) -> list[slice]:
    """range(extent) in equal parts, as many as asked for or as there are elements."""
    parts = min(parts, extent)
    ends = [extent * index // parts for index in range(parts + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


def image_tiles(
    images: int, bytes_per_image: int, least_bytes: int = 0, workers: int = 1, device: torch.device | None = None
) -> list[slice]:
    """Equal parts of the batch, as many for each worker.

    The buffers of a part take at most TILE_BYTES (or `least_bytes`, where that is more), but it has one image at least. On a
    `device` that is no CPU they take at most GPU_TILE_BYTES.
    """
    tile_bytes = TILE_BYTES if device is None or device.type == "cpu" else GPU_TILE_BYTES
    total = images * bytes_per_image
    return list(_tiles(images, total, max(tile_bytes, least_bytes), 1 if total < _SMALL_BYTES else workers))


@lru_cache(maxsize=4096)
def _tiles(images: int, total: int, tile_bytes: int, multiple: int) -> tuple[slice, ...]:
    """They are asked for once a layer and a phase, and are the same in each step."""
    count = -(-total // tile_bytes)
    return tuple(split(images, -(-count // multiple) * multiple))
