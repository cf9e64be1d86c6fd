"""Flat ports with the standard's names.

Amaranth joins the path of a port with two underscores and leaves a structure packed in one port. `Chip` wraps a component
in a module whose ports are named as a board's tools expect: `aclk`, `aresetn`, `m_axi_awaddr`, `s_axi_wready`, `irq`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Flow

_CHANNELS = frozenset({"aw", "w", "b", "ar", "r"})


def port_name(path: tuple[str | int, ...]) -> str:
    """The parts of a path joined by underscores, save that the name of an AXI channel joins its signals without one.

    >>> port_name(("m_axi", 0, "aw", "addr")), port_name(("commands", "valid"))
    ('m_axi_0_awaddr', 'commands_valid')
    """
    if len(path) > 2 and path[-2] in _CHANNELS:
        path = (*path[:-2], f"{path[-2]}{path[-1]}")
    return "_".join(str(part) for part in path)


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a chip: its name, its bits, and whether it is an input."""

    name: str
    bits: int
    is_input: bool


@dataclass(frozen=True, slots=True)
class _Leaf:
    name: str
    value: Value
    is_input: bool


def _leaves(component: wiring.Component) -> Iterator[_Leaf]:
    for path, member, value in component.signature.flatten(component):
        is_input = member.flow is Flow.In
        if isinstance(value, data.View) and isinstance(value.shape(), data.StructLayout):
            prefix = path[:-1] if path[-1] == "payload" else path
            for name, _ in value.shape():
                yield _Leaf(port_name((*prefix, name)), Value.cast(value[name]), is_input)
        else:
            yield _Leaf(port_name(path), Value.cast(value), is_input)


class Chip(Elaboratable):
    """A component behind flat ports, with the clock `aclk` and the synchronous, active-low reset `aresetn`.

    Attributes:
        component: what is wrapped; its signature names the ports.
        ports: for `amaranth.back`: name -> (signal, direction).
        table: the same as plain data, clock and reset first.
    """

    def __init__(self, component: wiring.Component) -> None:
        self.component = component
        self._leaves = list(_leaves(component))
        self._clock, self._reset_n = Signal(name="aclk"), Signal(name="aresetn")
        self._signals = [Signal(leaf.value.shape(), name=leaf.name) for leaf in self._leaves]
        self.table = (
            Port("aclk", 1, True),
            Port("aresetn", 1, True),
            *(Port(leaf.name, len(leaf.value), leaf.is_input) for leaf in self._leaves if len(leaf.value)),
        )
        names = [port.name for port in self.table]
        if len(set(names)) != len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two ports of {type(component).__name__} are named {repeated}: rename a member")

    @property
    def ports(self) -> dict[str, tuple[Signal, PortDirection]]:
        """Name -> (signal, direction), as `amaranth.back.rtlil.convert` takes them."""
        signals = {s.name: s for s in (self._clock, self._reset_n, *self._signals)}
        return {port.name: (signals[port.name], PortDirection.Input if port.is_input else PortDirection.Output) for port in self.table}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain("sync")
        m.d.comb += [ClockSignal().eq(self._clock), ResetSignal().eq(~self._reset_n)]
        m.submodules.core = self.component
        for leaf, signal in zip(self._leaves, self._signals, strict=True):
            m.d.comb += leaf.value.eq(signal) if leaf.is_input else signal.eq(leaf.value)
        return m
