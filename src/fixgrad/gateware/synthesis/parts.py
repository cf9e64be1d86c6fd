"""Cuts a design into parts that are synthesised one by one: each repeated block once, and each unit of the top by itself."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

from fixgrad.gateware.simulation.emit import TOP, Netlist

#: The module that holds the units of a chip: what `Chip` wraps.
CORE = f"{TOP}.core"
#: What the modules of the machine are to people. A part that is not here is called by its module.
TITLES = {
    "lane": "lane (MAC and its memory)",
    "pe": "PE, without its lanes",
    "compute_unit": "COMPUTE: planners, sum over PEs",
    "post_lane": "lane of a post-processor",
    "post_processor": "post-processor, without its lanes",
    "elementwise_unit": "elementwise unit, without these two",
    "elementwise_lane": "lane of the elementwise unit",
    "operand_reader": "its reader of 16-bit maps",
    "operand_reader_1": "its reader of 8-bit maps",
    "update_lane": "lane of UPDATE",
    f"{CORE}.front_end": "front end: control port, fetch, dispatch",
    f"{CORE}.interconnect": "interconnect of the memory ports",
    f"{CORE}.load": "LOAD",
    f"{CORE}.post": "POST: engines, LOSS, ranges",
    f"{CORE}.update": "UPDATE: engines",
    f"{CORE}.step_table": "step table",
    f"{TOP}.sdram": "SDRAM controller of the board",
    f"{TOP}.host": "host bridge of the board",
    TOP: "between the units",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Modules that are synthesised together.

    Attributes:
        name: of the topmost of its modules.
        count: how often it stands in the design.
        text: RTLIL of its modules, and of the parts in it as black boxes.
        black_boxes: the names of these.
    """

    name: str
    count: int
    text: str
    black_boxes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What it is, for people."""
        return TITLES.get(self.name, self.name.removeprefix(f"{CORE}.").removeprefix(f"{TOP}."))


def parts_of(design: Netlist) -> tuple[Part, ...]:
    """The parts of a design: its shared blocks in the order of the netlist, the units in the core and beside it, the rest.

    Each module belongs to one part, so what the parts take, times their counts, adds up to what the design takes.
    """
    modules = _modules("\n".join((*design.blocks.values(), design.top)))
    cells = {name: _cells(text, modules) for name, text in modules.items()}
    beside = [kind for kind in cells[TOP] if kind != CORE]
    units = [kind for kind in (*cells.get(CORE, ()), *beside) if kind not in design.blocks]
    boundary = [*design.blocks, *dict.fromkeys(units), TOP]
    counts = _instances(cells)
    return tuple(Part(name, counts[name], *_text(name, modules, cells, boundary)) for name in boundary if counts[name])


def _modules(text: str) -> dict[str, str]:
    """Module -> its RTLIL."""
    found = re.finditer(r"^module \\(\S+)\n.*?^end\n", text + "\n", re.MULTILINE | re.DOTALL)
    return {match[1]: match[0] for match in found}


def _cells(text: str, modules: Mapping[str, str]) -> tuple[str, ...]:
    """The modules that a module instantiates, one entry for each instance."""
    return tuple(kind for kind in re.findall(r"^ +cell \\(\S+) ", text, re.MULTILINE) if kind in modules)


def _instances(cells: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    users: dict[str, Counter[str]] = {name: Counter() for name in cells}
    for name, kinds in cells.items():
        for kind in kinds:
            users[kind][name] += 1

    @cache
    def count(name: str) -> int:
        return 1 if name == TOP else sum(number * count(user) for user, number in users[name].items())

    return {name: count(name) for name in cells}


def _text(
    part: str, modules: Mapping[str, str], cells: Mapping[str, tuple[str, ...]], boundary: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    inside, outside, waiting = [part], [], list(cells[part])
    while waiting:
        name = waiting.pop(0)
        if name in inside or name in outside:
            continue
        if name in boundary:
            outside.append(name)
        else:
            inside.append(name)
            waiting += cells[name]
    text = "".join([_black_box(name, modules[name]) for name in outside] + [modules[name] for name in inside])
    return text, tuple(outside)


def _black_box(name: str, text: str) -> str:
    ports = re.findall(r"^ +wire .*\b(?:input|output|inout) \d+ .*\n", text, re.MULTILINE)
    return f"attribute \\blackbox 1\nmodule \\{name}\n{''.join(ports)}end\n"
