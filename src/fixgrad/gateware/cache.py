"""What tools made, kept by the content of what they made it from: simulation builds, netlists, results of synthesis."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Files that were not used for so long are removed when another one is made.
KEEP_DAYS = 30


def cache_folder() -> Path:
    """`$FIXGRAD_CACHE`, or `fixgrad` in the user's cache folder."""
    if "FIXGRAD_CACHE" in os.environ:
        return Path(os.environ["FIXGRAD_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fixgrad"


def digest(*parts: object) -> str:
    """A hash of some texts, 24 hexadecimal digits."""
    whole = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        whole.update(len(text).to_bytes(8, "little") + text)
    return whole.hexdigest()[:24]


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time makes `target`; the others wait and find it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_unused(folder: Path) -> None:
    """Remove the files of a folder that nobody has used for `KEEP_DAYS`."""
    oldest = time.time() - KEEP_DAYS * 86_400
    for path in folder.iterdir():
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
