"""Cuts a design at its repeated blocks, so that Verilator translates each of them once.

Verilator writes the code of a module anew for every instance: a machine of 32 PEs gives 30 MB of C++, which takes five minutes
to compile and does not fit the processor's caches. Here each large repeated block becomes a model of its own. What
instantiates it gets the instance's ports as ports of its own, and the test bench carries their values (`harness/assembly.h`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from fixgrad.gateware.axi.ports import Port
from fixgrad.gateware.simulation.emit import TOP, Netlist, reads, yosys

#: A block becomes a part if it has so many bytes of RTLIL, and its further instances would add so many.
_LEAST_BYTES, _WORTH_BYTES = 60_000, 150_000
#: The clock of a block, and of the top; parts get it from the test bench, all at once.
CLOCK, TOP_CLOCK = "clk", "aclk"
#: Verilog module around a part.
WRAPPER = "part"


@dataclass(frozen=True, slots=True)
class Link:
    """A port of a child, by the block's name for it, and the port of its parent's wrapper that stands for it."""

    child: str
    port: str
    parent_port: str


@dataclass(frozen=True, slots=True)
class Part:
    """A module without large blocks in it.

    Attributes:
        name: of its block; `TOP` for the top.
        verilog: of the module and of `WRAPPER` around it, whose ports have names that C++ takes.
        ports: of the wrapper.
        own: name of a port of the block -> its name in the wrapper; the clock is `CLOCK`.
        children: instance in this part -> the part that it is.
        links: of all children; their clocks have none.
    """

    name: str
    verilog: str
    ports: tuple[Port, ...]
    own: Mapping[str, str]
    children: Mapping[str, str]
    links: tuple[Link, ...]


def partition(design: Netlist) -> tuple[Part, ...]:
    """The parts of a design, the top first; that alone where no block is worth it."""
    cells = _cells(design)
    chosen = _worthwhile(design, cells)
    names = [TOP, *chosen]
    # Modules between a part and its children become one with the part; only those lose their processes.
    inside = {name: _closure(name, cells, chosen) for name in names}
    between = {name: [each for each in inside[name] if _closure_meets(each, cells, chosen)] for name in names}
    opened = " ".join(sorted({each for found in between.values() for each in found}))
    read, files = reads(design)
    script = f"{read}hierarchy -check -top {TOP}\nproc -nomux -norom\n"
    if chosen:
        script += f"proc {opened}\nsetattr -mod -set keep_hierarchy 1 *\nsetattr -mod -unset keep_hierarchy {opened}\n"
        script += f"setattr -mod -set keep_hierarchy 1 {' '.join(chosen)}\nflatten {' '.join(names)}\n"
    script += "memory_collect\nattrmap -remove generator -remove src -remove keep_hierarchy\n"
    lists = [(parent, child) for parent in names for child in chosen]
    script += "".join(f"select -write {parent}.{child}.txt {parent}/t:{child}\n" for parent, child in lists)
    script += "".join(f"expose -evert {parent}/t:{child}\n" for parent, child in lists)
    for name in names:
        kept = [each for each in inside[name] if each == name or each not in between[name]]
        script += f"select {' '.join(kept)}\nwrite_verilog -norename -noattr -selected {name}.v\nselect -clear\n"
    outputs = [f"{parent}.{child}.txt" for parent, child in lists] + [f"{name}.v" for name in names]
    written = yosys(script, files, tuple(outputs))
    parts = []
    for parent in names:
        found = {child: written[f"{parent}.{child}.txt"].split() for child in chosen}
        children = {line.partition("/")[2]: child for child, lines in found.items() for line in lines}
        parts.append(_part(parent, written[f"{parent}.v"], children))
    return tuple(parts)


Cells = Mapping[str, tuple[str, ...]]


def _cells(design: Netlist) -> Cells:
    """Module -> modules of its cells, one entry for each cell."""
    found: dict[str, list[str]] = {}
    for line in "\n".join((*design.blocks.values(), design.top)).splitlines():
        words = line.split()
        if words[:1] == ["module"]:
            inside = found.setdefault(words[1].removeprefix("\\"), [])
        elif words[:1] == ["cell"] and words[1].startswith("\\"):
            inside.append(words[1].removeprefix("\\"))
    return {name: tuple(kinds) for name, kinds in found.items()}


def _closure(name: str, cells: Cells, boundary: Iterable[str]) -> list[str]:
    """A module and all below it, down to the boundary."""
    found, waiting = [], [name]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        found.append(each)
        waiting += [kind for kind in cells.get(each, ()) if kind not in boundary]
    return found


def _closure_meets(name: str, cells: Cells, chosen: Iterable[str]) -> bool:
    """Whether a module instantiates one of the blocks, or something that does."""
    return any(kind in chosen for each in _closure(name, cells, chosen) for kind in cells.get(each, ()))


def _worthwhile(design: Netlist, cells: Cells) -> list[str]:
    """Blocks that become parts, parts of blocks before the blocks."""
    users: dict[str, list[str]] = {}
    for name, kinds in cells.items():
        for kind in kinds:
            users.setdefault(kind, []).append(name)

    @cache
    def instances(name: str) -> int:
        return 1 if name == TOP else sum(map(instances, users.get(name, ())))

    @cache
    def size(name: str) -> int:
        """Bytes of a block with all that it instantiates, but for what is a part already."""
        inner = [kind for each in _closure(name, cells, design.blocks) for kind in cells[each] if kind in design.blocks]
        return len(design.blocks[name]) + sum(size(kind) for kind in inner if kind not in chosen)

    chosen: list[str] = []
    for name in design.blocks:
        if size(name) >= _LEAST_BYTES and (instances(name) - 1) * size(name) >= _WORTH_BYTES:
            chosen.append(name)  # noqa: PERF401 - `size` reads it
    return chosen


def _part(name: str, text: str, children: Mapping[str, str]) -> Part:
    """Reads the ports of a module that Yosys wrote, and wraps it."""
    ports, own, links, connections, declarations = [], {}, [], [], []
    for number, port in enumerate(_ports(name, text)):
        owner, _, of_child = port.name.rpartition(".")
        if owner and of_child == CLOCK:
            continue  # an output that nothing needs
        is_clock = port.name == CLOCK
        wrapped = port.name if not owner and (name == TOP or is_clock) else f"p{number}"
        if owner:
            links.append(Link(owner, of_child, wrapped))
        else:
            own[port.name] = wrapped
        ports.append(Port(wrapped, port.bits, port.is_input))
        connections.append(f".\\{port.name} ({wrapped})")
        declarations.append(f"{'input' if port.is_input else 'output'} [{port.bits - 1}:0] {wrapped}")
    wrapper = f"module {WRAPPER}({', '.join(declarations)});\n\\{name} inner({', '.join(connections)});\nendmodule\n"
    return Part(name, text + wrapper, tuple(ports), own, dict(children), tuple(links))


def _ports(name: str, text: str) -> Iterable[Port]:
    """The ports of a module, as Yosys declares them."""
    start = re.search(rf"^module \\?{re.escape(name)} ?\(", text, re.MULTILINE)
    assert start is not None, f"Yosys wrote no module {name}"
    body = text[start.start() : text.index("\nendmodule", start.start())]
    for kind, high, port in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\S+?) ?;", body, re.MULTILINE):
        yield Port(port.removeprefix("\\"), int(high or 0) + 1, kind == "input")
