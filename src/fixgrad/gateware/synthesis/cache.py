"""Results of tools, kept by the content of what they were made from, beside the simulation builds and for as long."""

import os
from collections.abc import Callable

from fixgrad.gateware.cache import cache_folder, locked, remove_unused


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """The content of a file of the cache, made if it is not there; of several processes one makes it."""
    target = cache_folder() / "synthesis" / name
    with locked(target):
        if target.exists():
            os.utime(target)
            return target.read_bytes()
        remove_unused(target.parent)
        content = make()
        unfinished = target.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return content


def is_kept(name: str) -> bool:
    """Whether the cache has a file."""
    return (cache_folder() / "synthesis" / name).exists()
