"""How busy other programs keep the machine while something is measured."""

import os
import time
from pathlib import Path
from typing import NamedTuple

#: Columns of a processor's line in /proc/stat that count as busy: user, nice, system, irq, softirq, steal.
_BUSY = (0, 1, 2, 5, 6, 7)


class _Reading(NamedTuple):
    """Seconds: of the clock, of all processors' work, and of that of this process."""

    clock: float
    busy: float
    own: float


class OtherLoad:
    """Watches from its making on."""

    def __init__(self) -> None:
        self._begin = _reading()

    def cores(self) -> float | None:
        """Processors that others kept busy since then, on average; None where the system does not tell."""
        end = _reading()
        if self._begin is None or end is None or end.clock <= self._begin.clock:
            return None
        others = (end.busy - self._begin.busy) - (end.own - self._begin.own)
        return max(others / (end.clock - self._begin.clock), 0.0)


def _reading() -> _Reading | None:
    try:
        busy = busy_seconds(Path("/proc/stat").read_text(encoding="ascii"), os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None
    return _Reading(time.perf_counter(), busy, time.process_time())


def busy_seconds(stat: str, ticks: int) -> float:
    """The time that all processors worked, from the text of /proc/stat (proc(5)) and its ticks a second."""
    columns = stat.splitlines()[0].split()[1:]
    return sum(int(columns[index]) for index in _BUSY) / ticks
