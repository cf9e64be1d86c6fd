"""Results of tools, kept by the content of what they were made from, beside the simulation builds and for as long."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fixgrad.gateware.simulation.builds import KEEP_DAYS, cache_folder


def digest(*parts: str) -> str:
    """A hash of some texts, 24 hexadecimal digits."""
    whole = hashlib.sha256()
    for part in parts:
        text = part.encode()
        whole.update(len(text).to_bytes(8, "little") + text)
    return whole.hexdigest()[:24]


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """The content of a file of the cache, made if it is not there; of several processes one makes it."""
    target = cache_folder() / "synthesis" / name
    with _locked(target):
        if target.exists():
            os.utime(target)
            return target.read_bytes()
        _remove_unused(target.parent)
        content = make()
        unfinished = target.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return content


def is_kept(name: str) -> bool:
    """Whether the cache has a file."""
    return (cache_folder() / "synthesis" / name).exists()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - KEEP_DAYS * 86_400
    for path in folder.iterdir():
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
