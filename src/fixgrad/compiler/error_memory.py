"""Which errors of a graph may lie in the same memory: those of which one is written after the other was read for the last time.

Activations are kept from FF to WG. An error is read by NG and WG of its layer, or by what its node sends, and never again. Where
a machine's memory would not hold all errors side by side, they share it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fixgrad.compiler.graph import Graph
from fixgrad.compiler.stages import FeatureMap, Stage


class Lifetime(NamedTuple):
    """From the event that writes a map to the last one that reads it, both included."""

    written: int
    read: int


class _Events:
    def __init__(self) -> None:
        self.now = 0
        self.found: dict[str, Lifetime] = {}

    def write(self, item: FeatureMap) -> None:
        self.found.setdefault(item.name, Lifetime(self.now, self.now))

    def read(self, item: FeatureMap) -> None:
        self.found[item.name] = Lifetime(self.found[item.name].written, self.now)


def error_lifetimes(graph: Graph) -> dict[str, Lifetime]:
    """The lifetime of each error map, in events: the order in which `fixgrad.compiler.lower` writes and reads them."""
    events, waiting = _Events(), list[FeatureMap]()
    events.write(graph.stages[-1].error)
    for back in graph.backward:
        for item in back.sums:
            events.now += 1
            for part in item.parts:
                events.read(part)
            events.write(item.target)
        if isinstance(back.step, Stage):
            events.now += 1
            for item_of_wg in waiting:  # WG of the stage before comes here
                events.read(item_of_wg)
            waiting = [back.error]
        events.now += 1
        events.read(back.error)
        if isinstance(back.step, Stage) and back.step.sink is not None:
            events.write(back.step.sink.map)
        for sent in back.sent:
            events.write(sent.target)
    events.now += 1
    for item_of_wg in waiting:
        events.read(item_of_wg)
    return events.found


def shared_places(lifetimes: Mapping[str, Lifetime], sizes: Mapping[str, int], alignment: int) -> dict[str, int]:
    """An offset for each map so that maps whose lifetimes overlap do not: the largest first, each as low as it can lie."""
    places: dict[str, int] = {}
    for name in sorted(sizes, key=lambda each: -sizes[each]):
        mine = lifetimes[name]
        taken = sorted(
            (places[other], places[other] + sizes[other])
            for other in places
            if lifetimes[other].written <= mine.read and mine.written <= lifetimes[other].read
        )
        offset = 0
        for first, last in taken:
            if offset + sizes[name] <= first:
                break
            offset = max(offset, -(-last // alignment) * alignment)
        places[name] = offset
    return places
