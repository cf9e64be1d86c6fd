"""Blocks that stand many times in the machine are converted once.

Amaranth elaborates every submodule anew and never notices that two are the same: 32 PEs of 32 lanes take 20 s and several
megabytes flat. `shared` makes a module of its own of such a block and instantiates it by name; the parts of a module may be
shared again.

Amaranth's simulator takes an instance for a black box and says nothing. So the choice follows the platform that a conversion
passes through the hierarchy: only a `Sharing` asks for instances. Everything else, the simulator too, gets the block itself,
which is the instance's exact twin because it is what the module was made from.
"""

import re
from typing import Protocol

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Const, Elaboratable, Instance, ResetSignal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow


class Shareable(Protocol):
    """A component that equals any other of its class with an equal `shape`."""

    @property
    def signature(self) -> wiring.Signature: ...
    @property
    def shape(self) -> object: ...


class Sharing:
    """Collects the modules of shared blocks while a design is converted: pass it as the `platform`.

    Args:
        block_kind: of the chip's memory blocks, for what is built according to it; None: in the form of tests and simulators.

    Attributes:
        blocks: RTLIL of each block by the name of its module, parts before the blocks that instantiate them.
    """

    def __init__(self, block_kind: str | None = None) -> None:
        self.block_kind = block_kind
        self.blocks: dict[str, str] = {}
        self._names: dict[tuple[type, object], str] = {}

    def module(self, block: Shareable) -> str:
        """The name of the module of `block`; converts it if it is the first of its kind."""
        key = (type(block), block.shape)
        if key not in self._names:
            self._names[key] = name = self._free_name(type(block).__name__)
            text = rtlil.convert(block, name=name, ports=_ports(block), platform=self, emit_src=False)
            self.blocks[name] = re.sub(r"^\s*attribute \\top 1\n", "", text, flags=re.MULTILINE)
        return self._names[key]

    def _free_name(self, class_name: str) -> str:
        base = re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()
        count = sum(1 for name in self._names.values() if re.fullmatch(rf"{base}(_\d+)?", name))
        return f"{base}_{count}" if count else base


def shared(block: Shareable, platform: object) -> Elaboratable:
    """What to add to the submodules for `block`, whose ports are used as if it were added itself."""
    if not isinstance(platform, Sharing):
        return block
    # Amaranth warns of components that are made and not elaborated, which is the point here.
    for made in (block, *vars(block).values()):
        if isinstance(made, Elaboratable):
            made._MustUse__used = True
    ports = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
    for name, (value, direction) in _ports(block).items():
        if len(value):
            ports[f"{'i' if direction is PortDirection.Input else 'o'}_{name}"] = value
    return Instance(platform.module(block), **ports)


def _ports(block: Shareable | wiring.Component) -> dict[str, tuple[Value, PortDirection]]:
    """The ports of a block; one that is constant, like the `ready` of a stream that never waits, is none."""
    found = {}
    for path, member, value in block.signature.flatten(block):
        direction = PortDirection.Input if member.flow is Flow.In else PortDirection.Output
        if not isinstance(Value.cast(value), Const):
            found["__".join(str(part) for part in path)] = Value.cast(value), direction
    return found


def converted(design: wiring.Component, name: str) -> str:
    """RTLIL of a design and of all its shared blocks; its own module is the top and is called `name`."""
    sharing = Sharing()
    top = rtlil.convert(design, name=name, ports=_ports(design), platform=sharing, emit_src=False)
    if name in sharing.blocks:
        raise ValueError(f"the design is called {name} like one of its blocks: choose another name")
    return "\n".join((*sharing.blocks.values(), top))
